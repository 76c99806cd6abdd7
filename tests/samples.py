"""Small modules to export, their weights seeded by the names of the parameters."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from gpt_export_models import DummyGPTModel
from gpt_export_models.gpt import GPTModel
from torch import Tensor, nn

VOCAB = 29
CONTEXT = 24
TINY_CONFIG: dict[str, Any] = {
    "vocab_size": VOCAB,
    "context_length": CONTEXT,
    "emb_dim": 8,
    "n_heads": 2,
    "n_layers": 2,
    "drop_rate": 0.1,
    "qkv_bias": True,
}


def seeded(module: nn.Module, spread: float = 0.5) -> nn.Module:
    """`module` with weights that depend on nothing but the names of its parameters."""
    for name, parameter in module.named_parameters():
        rng = np.random.default_rng(list(hashlib.sha256(name.encode()).digest()))
        values = rng.normal(0, spread, tuple(parameter.shape))
        parameter.data.copy_(torch.from_numpy(np.asarray(values)))
    return module


def random_ids(batch: int, sequence: int, vocab: int = VOCAB, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, batch, sequence]).integers(0, vocab, (batch, sequence), dtype=np.int64)


def eager_logits(module: nn.Module, ids: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return module(torch.from_numpy(ids)).numpy()


def tiny_dummy() -> nn.Module:
    """The skeleton, small."""
    return seeded(DummyGPTModel(TINY_CONFIG)).eval()


def other_dummy() -> nn.Module:
    """`tiny_dummy` with other weights."""
    return seeded(DummyGPTModel(TINY_CONFIG), spread=0.4).eval()


def roomy_dummy() -> nn.Module:
    """`tiny_dummy` with a context of 64."""
    return seeded(DummyGPTModel(TINY_CONFIG | {"context_length": 64})).eval()


def tiny_gpt() -> nn.Module:
    """The decoder without a cache, small."""
    return seeded(GPTModel(TINY_CONFIG)).eval()


class WithEmbedding(nn.Module):
    """What the modules below share: an embedding and a head."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.emb = nn.Embedding(VOCAB, width)
        self.head = nn.Linear(width, VOCAB)


class Plain(WithEmbedding):
    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.emb(ids))


class Branching(WithEmbedding):
    """Short sequences take one way, long ones another: a trace would keep one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(8, VOCAB, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.emb(ids)
        if ids.shape[1] > 3:
            x = self.head(x)
        else:
            x = self.other(x)
            x = 2.0 * x
        return x


class Looping(WithEmbedding):
    """As many turns as there are tokens: a trace would keep the number of its example."""

    def forward(self, ids: Tensor) -> Tensor:
        x = self.emb(ids)
        states = torch.zeros_like(x[:, :1])
        for i in range(ids.shape[1]):
            state = torch.tanh(0.5 * states[:, -1] + x[:, i])
            states = torch.cat([states, state.unsqueeze(1)], dim=1)
        return self.head(x + states[:, 1:])


class Tied(WithEmbedding):
    def __init__(self) -> None:
        super().__init__()
        self.head.weight = self.emb.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.emb(ids))


class Buffers(WithEmbedding):
    """Buffers of every kind beside the parameters: bool, int64, float, not persistent, of no axis."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("allowed", torch.arange(VOCAB) % 3 != 0)
        self.register_buffer("order", torch.arange(VOCAB).flip(0))
        self.register_buffer("width_scale", torch.linspace(0.5, 1.5, 8), persistent=False)
        self.register_buffer("step", torch.tensor(3))

    def forward(self, ids: Tensor) -> Tensor:
        logits = self.head(self.emb(self.order[ids]) * self.width_scale) + self.step.float()
        return logits.masked_fill(~self.allowed, -5.0)


class Scalar(WithEmbedding):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.7))

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.emb(ids) * self.gain)


class Unused(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Parameter(torch.ones(3, 3))


class Loose(WithEmbedding):
    """A tensor that is neither parameter nor buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = torch.linspace(0, 1, VOCAB)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.emb(ids)) + self.slope


class Half(WithEmbedding):
    """An embedding kept in float16."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = self.emb.half()

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.emb(ids).float())


class NamesADevice(WithEmbedding):
    """Does not run on the meta device, so the exporter has to take the weights along."""

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.emb(ids) + 0.1 * torch.arange(ids.shape[1], device="cpu").unsqueeze(1))


class Dropping(WithEmbedding):
    """Dropout that cannot be switched off."""

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.nn.functional.dropout(self.emb(ids), 0.5, True))


class NotANumber(WithEmbedding):
    def forward(self, ids: Tensor) -> Tensor:
        return torch.log(self.head(self.emb(ids)))


class DoesNotScript(WithEmbedding):
    def forward(self, ids: Tensor) -> Tensor:
        x = torch.from_numpy(self.emb(ids).detach().numpy())  # TorchScript has no NumPy
        return self.head(x)


class NoOperator(WithEmbedding):
    def forward(self, ids: Tensor) -> Tensor:
        return torch.special.bessel_j0(self.head(self.emb(ids)))


class ReturnsPair(WithEmbedding):
    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        x = self.emb(ids)
        return self.head(x), x


class ReturnsLast(WithEmbedding):
    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.emb(ids))[:, -1]


class Raises(WithEmbedding):
    def forward(self, ids: Tensor) -> Tensor:
        raise ValueError(f"no weights for ids of shape {list(ids.shape)}")


class TwoInputs(WithEmbedding):
    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.head(self.emb(ids)) * mask


SCRIPTABLE = (Branching, Looping, Tied, Buffers, Scalar, Unused, Loose, Half, NamesADevice)
