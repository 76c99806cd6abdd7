"""Positions at which eager is not sure of itself: where its last bits decide which expert a router chooses.

Two experts whose scores differ by rounding alone are both right, and their outputs are far apart. Eager is run again
with the last bits of every module's output jittered. A position where a candidate leaves its limit by no more than
eager then moves by itself is told apart and counted, not judged; there may be few of them.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gpt_export.gate.case import Case
from gpt_export.gate.parity import Logits
from gpt_export.gate.runs import run_rows_alone

logger = logging.getLogger(__name__)

JITTERS = (*[2.0**-22] * 4, *[2.0**-21] * 4, *[2.0**-20] * 4, *[2.0**-19] * 4)
"""Relative, one a run: two to sixteen units in the last place, which a sum of products in another order is off by."""
LIKENESS = 1.5
"""How much further than eager by itself a candidate may be: what follows a choice is moved a little by all before."""
MOST_UNSTEADY = 0.125
"""Of all positions that a candidate is compared on; with more of them nothing is excused. A choice that falls
differently early in a row is felt at every position behind it."""


def unsteady_positions(
    reference: nn.Module, case: Case, expected: Logits, found: Logits, limit: float
) -> NDArray[np.bool_]:
    """Where `found` is beyond `limit` of `expected`, and eager moves by as much with its last bits, (batch, sequence).

    Args:
        reference: the eager module.
        limit: the largest difference that needs no excuse.
    """
    error = _largest(found, expected)
    wrong = (error > limit) & case.compared()
    moved = np.zeros(error.shape, np.float32)
    for draw, jitter in enumerate(JITTERS):
        if not (wrong & (error > LIKENESS * moved)).any():
            break
        with jittered(reference, jitter, draw):
            moved = np.maximum(moved, _largest(run_rows_alone(reference, case), expected))
    unsteady: NDArray[np.bool_] = wrong & (moved > limit) & (error <= LIKENESS * moved)
    logger.info("case %s: eager moves by itself at %d of %d wrong positions", case.name, unsteady.sum(), wrong.sum())
    return unsteady


@contextlib.contextmanager
def jittered(module: nn.Module, size: float, seed: int) -> Iterator[None]:
    """Runs `module` with every floating output of its parts off by about `size` of itself, drawn anew in each call."""
    generator = torch.Generator().manual_seed(seed)

    def jitter(_part: nn.Module, _args: object, out: object) -> object:
        if not isinstance(out, Tensor) or not out.is_floating_point():
            return None  # leaves the output as it is
        return out * (1 + size * torch.randn(out.shape, generator=generator, dtype=out.dtype))

    handles = [part.register_forward_hook(jitter) for part in module.modules() if part is not module]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _largest(a: Logits, b: Logits) -> NDArray[np.float32]:
    """The largest difference at each position."""
    with np.errstate(invalid="ignore"):
        largest: NDArray[np.float32] = np.abs(a - b).max(axis=-1)
    return np.where(np.isfinite(largest), largest, np.float32(np.inf))
