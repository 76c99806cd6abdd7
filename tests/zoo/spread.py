"""Weights for modules that were never trained: the same for the same name, and far from nothing."""

import zlib
from typing import Any

import torch
from torch import Tensor, nn

EMBEDDED = 0.8
"""Deviation of an embedding's entries; products keep the deviation of what they read (1 / sqrt(fan in))."""
TIED = 0.35
"""The same where the embedding is the output head too: logits that stay comparable with the untied ones."""
JITTER = 0.25
"""Deviation of what is added to vectors and scalars: norms are not all ones, biases not all zeros."""


def spread(module: Any) -> Any:
    """The module itself, in eval mode, its parameters replaced in place; what is no module comes back as it is.

    Each parameter draws from a generator seeded by its name, so a model that is built twice is the same model, and one
    layer more does not change the others.
    """
    if not isinstance(module, nn.Module):
        return module
    embeddings = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    linears = {id(part.weight) for part in module.modules() if isinstance(part, nn.Linear)}
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if not parameter.is_floating_point():
                continue
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim < 2 or parameter.numel() == max(parameter.shape):  # of weight norm: (out, 1)
                parameter.copy_(JITTER * noise + _level(parameter))
            elif id(parameter) in embeddings:
                parameter.copy_(noise * (TIED if id(parameter) in linears else EMBEDDED))
            elif id(parameter) in linears:
                parameter.copy_(noise * parameter.shape[-1] ** -0.5)
            else:  # which axis it is read along is its module's affair
                parameter.copy_(noise * max(parameter.shape[-2:]) ** -0.5)
    return module.eval()


def _level(vector: Tensor) -> float:
    """What all entries are where they are one number: the ones of a norm, the zeros of a bias; else what was drawn.

    That is 0 for a bias, and 1 for the lengths of weight norm, which are a column.
    """
    first = float(vector.flatten()[0])
    if bool((vector == first).all()):
        return first
    return 0.0 if vector.ndim < 2 else 1.0
