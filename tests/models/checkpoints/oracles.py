"""Models of odd sizes with weights of real spread, and ways to look at what was read."""

from __future__ import annotations

import torch
from gpt_export_models.checkpoints import Checkpoint, expected_shapes
from gpt_export_models.gpt import GPTModel
from torch import Tensor, nn

LIMIT = 2e-5
"""Largest difference of float32 logits relative to their largest: 6.4e-7 was measured, and 2.0e-4 for the smallest
mistake (the other GELU); other kernels may round otherwise."""


def spread(module: nn.Module, seed: int = 0) -> nn.Module:
    """`module` in eval mode, every parameter drawn anew, so that no bias is 0 and no scale is 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            around = 1.0 if parameter.dim() == 1 and bool((parameter == 1).all()) else 0.0
            parameter.copy_(around + 0.3 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def logits_of(checkpoint: Checkpoint, ids: Tensor) -> Tensor:
    """Logits of our model with the checkpoint's weights, in float32."""
    with torch.device("meta"):
        model = GPTModel(checkpoint.config)
    model.load_state_dict({name: tensor.float() for name, tensor in checkpoint.tensors.items()}, assign=True)
    with torch.no_grad():
        return model.eval()(ids)


def off_by(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    assert a.shape == b.shape
    return ((a - b).abs().max() / b.abs().max()).item()


def seeded_ids(vocab_size: int, batch: int = 2, length: int = 9) -> Tensor:
    return torch.randint(0, vocab_size, (batch, length), generator=torch.Generator().manual_seed(7))


def check_complete(checkpoint: Checkpoint) -> None:
    """The mapping has exactly the names and shapes of the model, and a tied head is one object."""
    shapes = {name: tuple(tensor.shape) for name, tensor in checkpoint.tensors.items()}
    assert list(shapes.items()) == list(expected_shapes(checkpoint.config).items())
    tied = checkpoint.tensors["out_head.weight"] is checkpoint.tensors["tok_emb.weight"]
    assert tied == checkpoint.config.tied_head
