"""A case that left its limit, judged again by what eager itself is on that very case.

Some models magnify rounding on some inputs by orders of magnitude, and some choose experts by a hair. Eager is then as
far from itself as the candidate is from it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from gpt_export.gate.case import Case
from gpt_export.gate.limits import Limits
from gpt_export.gate.noise import NOISE_CEILING, measure_error
from gpt_export.gate.parity import Logits, Tolerance, compare
from gpt_export.gate.report import CaseResult
from gpt_export.gate.steadiness import MOST_UNSTEADY, unsteady_positions

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Appeal:
    """What is judged again: a case, both logits, and how the reference is had."""

    case: Case
    expected: Logits
    found: Logits
    limits: Limits
    reference: Callable[[], nn.Module]

    def verdict(self, result: CaseResult, *, lost: bool = False) -> CaseResult:
        """The verdict by eager's own noise on the case, or `result` where that explains nothing.

        Args:
            lost: whether another case has failed already: then no run is spent on excusing positions of this one.
        """
        if result.non_finite or self.limits.noise_factor is None:
            return result
        module = self.reference()
        again = self._by_noise(module, result)
        return again if again.passed or lost else self._by_steadiness(module, result)

    def _by_noise(self, module: nn.Module, result: CaseResult) -> CaseResult:
        """Every position held to the largest error of eager in float32 on the case."""
        factor = self.limits.noise_factor or 0.0
        if result.max_abs > factor * NOISE_CEILING * result.scale:
            return result  # no noise that is small enough to judge by could explain it
        errors = [error[0] for row in self.case.rows() if (error := measure_error(module, row)) is not None]
        noise = max(errors) / result.scale if errors and result.scale else 0.0
        if not 0 < noise <= NOISE_CEILING:
            return result
        logger.info("case %s left its limit; eager's own noise there is %.3g", self.case.name, noise)
        tolerance = Tolerance(limits=self.limits, noise=noise, source="case")
        return compare(self.case.shown(), self.expected, self.found, tolerance)

    def _by_steadiness(self, module: nn.Module, result: CaseResult) -> CaseResult:
        """The positions held to the limit that the case had, but for those at which eager moves by itself as far."""
        limit = result.limit or 0.0
        unsteady = unsteady_positions(module, self.case, self.expected, self.found, limit)
        count = int(unsteady.sum())
        if not count or not result.scale:
            return result
        shown = self.case.shown()
        judged = replace(shown, mask=shown.mask & ~unsteady)
        noise = limit / (self.limits.noise_factor or 1.0) / result.scale
        tolerance = Tolerance(limits=self.limits, noise=noise, source=result.limit_source)
        if not judged.mask.any():  # nothing is left to compare, and that is counted
            again = compare(shown, self.expected, np.asarray(self.expected), tolerance)
            return replace(again, positions=0, unsteady=count)
        again = compare(judged, self.expected, self.found, tolerance)
        return replace(again, unsteady=count) if again.passed else result


def excused(results: Sequence[CaseResult]) -> tuple[CaseResult, ...]:
    """`results`, those with unsteady positions failed where there are too many for chance."""
    unsteady = sum(result.unsteady for result in results)
    positions = sum(result.positions + result.unsteady for result in results)
    if unsteady <= MOST_UNSTEADY * positions:
        return tuple(results)
    fault = (
        f"at {unsteady} of {positions} positions eager's own last bits decide what it computes; "
        f"{MOST_UNSTEADY:.0%} are let pass"
    )
    return tuple(result.with_fault(fault) if result.unsteady else result for result in results)


def unsteady_notes(results: Sequence[CaseResult], target: str) -> tuple[str, ...]:
    """A note that counts the positions that were not judged."""
    unsteady = sum(result.unsteady for result in results)
    if not unsteady:
        return ()
    cases = ", ".join(result.name for result in results if result.unsteady)
    return (
        f"{target}: {unsteady} positions are not judged (of {cases}): eager with its last bits jittered moves there as "
        "far, as where a router chooses between two experts by a hair",
    )
