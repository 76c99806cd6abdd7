"""Whether the reference is a decoder at all: nothing that it is compared with can be judged otherwise.

A decoder gives the same logits for the same ids, whatever stands behind them and in other rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gpt_export.gate.noise import run_in_double
from gpt_export.runtime.signature import Head

SEEN = 2.0**-12
"""Relative to the size of the logits; differences below are the rounding of other shapes, or too small to tell."""
LARGE = 2.0**-7
"""From here on no rounding explains a difference, where the module does not run in float64."""
SEEN_IN_DOUBLE = 2.0**-30


def reference_faults(module: nn.Module, ids: NDArray[np.int64], head: Head, vocab_size: int) -> tuple[str, ...]:
    """What keeps `module` from being a decoder, in words; empty if nothing was found.

    The row is run twice, beside a copy with another last token and beside a row that is other throughout.

    Args:
        ids: one row to try it on, (1, sequence).
    """
    last, other = ids.copy(), (ids + 1) % vocab_size
    last[:, -1] = other[:, -1]
    other[:, -1] = (ids[:, -1] + 2) % vocab_size
    beside_like, beside_other = np.concatenate([ids, last]), np.concatenate([ids, other])
    like, unlike = _run(module, beside_like), _run(module, beside_other)
    moved = _difference(like[:1], unlike[:1]) > SEEN
    if moved and (found := _difference(like, _run(module, beside_like))) > SEEN:
        return (
            f"the module gives other scores each time it is run on the same ids ({found:.2g} of their size), so it "
            "draws at random in eval mode; switch that off",
        )
    pair = (beside_like, beside_other)
    if moved and (found := _beyond_rounding(module, pair, lambda a, b: (a[:1], b[:1]))):
        return (
            f"the module mixes the rows of a batch: another second row changes the first one's scores ({found:.2g} of "
            "their size); keep rows apart",
        )
    if head.of != "tokens" or head.positions != "all" or ids.shape[1] == 1:
        return ()
    if found := _beyond_rounding(module, (beside_like,), lambda a: (a[:1, :-1], a[1:, :-1]), like):
        return (
            f"the module is not causal: another last token changes the logits before it ({found:.2g} of their "
            "size); mask later positions in its attention, or in whatever mixes positions",
        )
    return ()


def _beyond_rounding(
    module: nn.Module,
    batches: Sequence[NDArray[np.int64]],
    compared: Callable[..., tuple[Tensor, Tensor]],
    *run: Tensor,
) -> float:
    """The difference of two scores in float32, if it is no rounding; else 0.

    Args:
        batches: what is run, in float64 too where that decides.
        compared: the two scores, from those of the batches.
        run: the scores of the batches in float32, where they are known.
    """
    found = _difference(*compared(*(run or [_run(module, each) for each in batches])))
    if found <= SEEN:
        return 0.0
    exact = [run_in_double(module, torch.from_numpy(each)) for each in batches]
    if any(scores is None or scores.dtype != torch.float64 for scores in exact):
        return found if found > LARGE else 0.0
    return found if _difference(*compared(*exact)) > SEEN_IN_DOUBLE else 0.0


def _run(module: nn.Module, ids: NDArray[np.int64]) -> Tensor:
    with torch.no_grad():
        scores: Tensor = module(torch.from_numpy(ids))
    return scores


def _difference(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the root mean square of `a`; NaN in both is none."""
    size = float(a.double().square().mean().sqrt()) or 1.0
    same = (a == b) | (a.isnan() & b.isnan())
    return float((a.double() - b.double()).abs().masked_fill(same, 0.0).max()) / size if a.numel() else 0.0
