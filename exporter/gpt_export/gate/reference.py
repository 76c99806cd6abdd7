"""Whether the reference is a decoder at all: nothing that it is compared with can be judged otherwise.

A decoder gives the same logits for the same ids, whatever stands behind them and in other rows.
"""

from __future__ import annotations

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

    Args:
        ids: one row to try it on, (1, sequence).
    """
    first, again = _run(module, ids), _run(module, ids)
    if (found := _difference(first, again)) > SEEN:
        return (
            f"the module gives other scores each time it is run on the same ids ({found:.2g} of their size), so it "
            "draws at random in eval mode; switch that off",
        )
    faults = []
    other = (ids + 1) % vocab_size
    if head.of == "tokens" and head.positions == "all" and ids.shape[1] > 1 and vocab_size > 1:
        changed = ids.copy()
        changed[:, -1] = other[:, -1]
        if found := _moved(module, ids, changed, slice(0, ids.shape[1] - 1)):
            faults.append(
                f"the module is not causal: another last token changes the logits before it ({found:.2g} of their "
                "size); mask later positions in its attention, or in whatever mixes positions"
            )
    if found := _moved(module, np.concatenate([ids, ids]), np.concatenate([ids, other]), slice(None)):
        faults.append(
            f"the module mixes the rows of a batch: another second row changes the first one's scores ({found:.2g} of "
            "their size); keep rows apart"
        )
    return tuple(faults)


def _moved(module: nn.Module, ids: NDArray[np.int64], changed: NDArray[np.int64], kept: slice) -> float:
    """How far the first row's scores at `kept` move from the one batch to the other, if it is no rounding; else 0."""

    def moved(single: Tensor, double: Tensor) -> float:
        a, b = (scores.reshape(len(ids), -1, scores.shape[-1])[:1, kept] for scores in (single, double))
        return _difference(a, b)

    found = moved(_run(module, ids), _run(module, changed))
    if found <= SEEN:
        return 0.0
    exact = [run_in_double(module, torch.from_numpy(each)) for each in (ids, changed)]
    if any(scores is None or scores.dtype != torch.float64 for scores in exact):
        return found if found > LARGE else 0.0
    return found if moved(*exact) > SEEN_IN_DOUBLE else 0.0  # type: ignore[arg-type]


def _run(module: nn.Module, ids: NDArray[np.int64]) -> Tensor:
    with torch.no_grad():
        scores: Tensor = module(torch.from_numpy(ids))
    return scores


def _difference(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the root mean square of `a`; NaN in both is none."""
    size = float(a.double().square().mean().sqrt()) or 1.0
    same = (a == b) | (a.isnan() & b.isnan())
    return float((a.double() - b.double()).abs().masked_fill(same, 0.0).max()) / size if a.numel() else 0.0
