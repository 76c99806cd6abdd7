"""Matrices to codes and scales, to the nearest code."""

from __future__ import annotations

import torch
from torch import Tensor

from gpt_export.weights.quantize.schemes import Scheme

_SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8)
"""How far the largest weight of a block may be cut for the sake of the others; tried one by one."""
_ROWS_AT_ONCE = 4096


def blocked(matrix_nk: Tensor, block: int | None) -> Tensor:
    """`matrix_nk` as float32 (N, blocks, block), the last block of a row filled up with zeros."""
    rows, width = matrix_nk.shape
    block = block or width
    blocks = -(-width // block)
    padded = torch.nn.functional.pad(matrix_nk.float(), (0, blocks * block - width))
    return padded.reshape(rows, blocks, block)


def to_nearest(matrix_nk: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor]:
    """Codes, int8 (N, blocks, block), and scales, float32 (N, blocks), of a matrix (N outputs, K inputs)."""
    codes, scales = [], []
    for start in range(0, matrix_nk.shape[0], _ROWS_AT_ONCE):
        part = blocked(matrix_nk[start : start + _ROWS_AT_ONCE], scheme.block)
        scale = best_scales(part, scheme)
        codes.append(nearest(part, scale, scheme).to(torch.int8))
        scales.append(scale.squeeze(-1))
    return torch.cat(codes), torch.cat(scales)


def best_scales(weights: Tensor, scheme: Scheme) -> Tensor:
    """The scale, (..., 1), that leaves the least squared error in each row of `weights`, (..., block), of those tried.

    At 8 bits it takes the largest weight to the largest code. Below, the largest weight may also be cut, and may have
    either end of the asymmetric range: the sign of the scale is free, as in llama.cpp's Q4_0.
    """
    extreme = weights.gather(-1, weights.abs().argmax(dim=-1, keepdim=True))
    if scheme.bits == 8:
        return _not_zero(extreme.abs() / scheme.highest)
    unit = _not_zero(extreme)  # squares of very large or small weights leave float32
    best = torch.ones_like(extreme)
    least = torch.full_like(extreme, float("inf"))
    for end in (scheme.lowest, scheme.highest):
        for shrink in _SHRINKS:
            scale = _not_zero(extreme * (shrink / end))
            error = _sum_in_pairs(((nearest(weights, scale, scheme) * scale - weights) / unit).square())
            better = error < least
            best, least = torch.where(better, scale, best), torch.where(better, error, least)
    return best


def _sum_in_pairs(values: Tensor) -> Tensor:
    """The sum over the last axis, (..., 1), in an order that no processor's width of vectors decides."""
    while (width := values.shape[-1]) > 1:
        half = width // 2
        values = torch.cat([values[..., :half] + values[..., half : 2 * half], values[..., 2 * half :]], dim=-1)
    return values


def _not_zero(scale: Tensor) -> Tensor:
    """`scale` with 1 where it is 0: where all weights are, or too small to be divided further."""
    return torch.where(scale == 0, 1.0, scale)


def nearest(weights: Tensor, scales: Tensor, scheme: Scheme) -> Tensor:
    """The nearest codes, as floats."""
    return (weights / scales).round_().clamp_(scheme.lowest, scheme.highest)
