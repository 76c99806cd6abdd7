"""Rounding to few bits that lets the weights not yet rounded make up for the error of those that are.

Method: GPTQ (Frantar et al., arXiv:2210.17323): with H = X^T X of what a layer reads, each column's rounding error is
spread over the later columns along the inverse of H, so that the layer's output, not its weights, stays near.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gpt_export.weights.quantize.parallel import Each
from gpt_export.weights.quantize.rounding import best_scales, nearest
from gpt_export.weights.quantize.schemes import Scheme

DAMPING = 0.01
"""Share of the mean of H's diagonal that is added to it, as in the paper."""


_ROWS_AT_ONCE = 512


def rounded_for_inputs(
    matrix_nk: Tensor, second_moment_kk: Tensor, scheme: Scheme, each: Each = map
) -> tuple[Tensor, Tensor]:
    """Codes, int8 (N, blocks, block), and scales, float32 (N, blocks), of a matrix (N outputs, K inputs).

    Args:
        second_moment_kk: X^T X, any multiple of it, of the inputs X (tokens, K) that the layer reads.
        each: applies the rounding to parts of the rows, which know nothing of each other.
    """
    width = matrix_nk.shape[1]
    block = scheme.block or width
    filling = -width % block
    spread = torch.nn.functional.pad(_spread(second_moment_kk), (0, filling, 0, filling))
    spread.diagonal()[width:] = 1

    def rounded(rows: Tensor) -> tuple[Tensor, Tensor]:
        return _rounded_rows(torch.nn.functional.pad(rows.detach().to(torch.float64), (0, filling)), spread, scheme)

    codes, scales = zip(*each(rounded, torch.split(matrix_nk, _ROWS_AT_ONCE)), strict=True)
    return torch.cat(codes), torch.cat(scales)


def _rounded_rows(left: Tensor, spread: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor]:
    """Codes and scales of some rows, float64 (N, whole blocks), which are written over."""
    width = left.shape[1]
    block = scheme.block or width
    codes, scales = [], []
    for start in range(0, width, block):
        stop = start + block
        scale = best_scales(left[:, start:stop].float(), scheme).double()
        block_codes, block_errors = [], []
        for column in range(start, stop):
            code = nearest(left[:, column : column + 1], scale, scheme)
            error = (left[:, column : column + 1] - code * scale) / spread[column, column]
            left[:, column:stop] -= error * spread[column, column:stop]
            block_codes.append(code)
            block_errors.append(error)
        left[:, stop:] -= torch.cat(block_errors, dim=1) @ spread[start:stop, stop:]
        codes.append(torch.cat(block_codes, dim=1).to(torch.int8))
        scales.append(scale.float())
    return torch.stack(codes, dim=1), torch.cat(scales, dim=1)


def _spread(second_moment_kk: Tensor) -> Tensor:
    """The upper Cholesky factor of the inverse of the damped second moment, float64 (K, K)."""
    moment = second_moment_kk.to(torch.float64, copy=True)
    unread = moment.diagonal() == 0
    moment[unread, unread] = 1
    moment.diagonal().add_(DAMPING * moment.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moment))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor
