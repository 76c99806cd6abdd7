"""Arrays to verdicts: how far a candidate's logits are from the reference's. NumPy only.

Differences are taken in the logits' own float32: of two numbers within a factor of two of each other the difference
is exact (Sterbenz, "Floating-Point Computation", 1974), and anything further apart is far over every limit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]

NOISE_FACTOR = 8.0
"""How many times eager's own noise a candidate may be off; `docs/parity.md` has the measurement."""
NOISE_FLOOR = 2.0**-20
"""The least relative noise assumed (8 units in the last place): short sums can come out exact by luck."""
_SLICE_ELEMENTS = 512 * 1024
"""About 2 MB of float32: a slice and its difference stay in cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """What float32 may cost: a multiple of the error that eager float32 has against float64, relative to the logits.

    `noise` is the largest such error over the root mean square of the logits, measured on this very model.
    `source` says on what: "probe" (a few positions, for all cases), "case" (the case itself), or "given".
    """

    noise: float
    source: str = "probe"

    def limit(self, scale: float) -> float:
        """The largest absolute difference allowed where the logits have the root mean square `scale`."""
        return NOISE_FACTOR * max(self.noise, NOISE_FLOOR) * scale


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """One case of one target, compared."""

    name: str
    batch: int
    sequence: int
    positions: int
    """Compared positions; padding is none of them."""
    note: str
    """What the case does not show of what it was meant to, such as a shape that was shrunk; empty otherwise."""
    scale: float
    """Root mean square of the reference's logits."""
    limit: float
    limit_source: str
    max_abs: float
    worst_ratio: float
    """`max_abs / limit`; at most 1 passes."""
    worst_index: tuple[int, int, int]
    """Row, position and token of the largest difference."""
    top1_agreement: float
    """Share of positions whose likeliest token is the same; near-ties within the limit count as the same."""
    top1_ties: int
    """Positions where the likeliest token differs, but by no more than both errors could explain."""
    non_finite: int
    """Candidate logits that are NaN or Inf."""
    fault: str = ""
    """What kept the case from being compared, such as a wrong shape; empty otherwise."""

    @property
    def passed(self) -> bool:
        """Whether the candidate may be believed on this case."""
        return not self.fault and self.non_finite == 0 and self.worst_ratio <= 1 and self.top1_agreement == 1

    def with_fault(self, fault: str) -> CaseResult:
        """This result, failed because of `fault`."""
        return replace(self, fault=fault)

    def explain(self) -> str:
        """The failure in words."""
        if self.fault:
            return f"case {self.name}: {self.fault}"
        if self.non_finite:
            return f"case {self.name}: {self.non_finite} logits are NaN or Inf"
        row, position, token = self.worst_index
        return (
            f"case {self.name}: logits differ by {self.max_abs:.3g} where {self.limit:.3g} is allowed "
            f"({self.worst_ratio:.3g} times; row {row}, position {position}, token {token}; "
            f"top-1 agrees on {self.top1_agreement:.1%})"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values of every field, and `passed`."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return values | {"worst_index": list(self.worst_index), "passed": self.passed}


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsResult:
    """The bit-for-bit comparison of the file's weights with their source."""

    checked: int
    size_bytes: int
    mismatches: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether all are equal."""
        return not self.mismatches

    def to_dict(self) -> dict[str, Any]:
        """JSON values of every field, and `passed`."""
        return {
            "checked": self.checked,
            "size_bytes": self.size_bytes,
            "mismatches": list(self.mismatches),
            "passed": self.passed,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityReport:
    """The verdict on an artifact: every case of every target, and the weights."""

    targets: Mapping[str, tuple[CaseResult, ...]]
    weights: WeightsResult | None
    noise: float
    """Relative error of eager float32 against float64; see `Tolerance`."""
    notes: tuple[str, ...] = ()

    @property
    def failures(self) -> tuple[str, ...]:
        """Every failure in words; empty when the artifact may be believed."""
        weights = () if self.weights is None else self.weights.mismatches
        cases = [
            f"{target}, {result.explain()}"
            for target, results in self.targets.items()
            for result in results
            if not result.passed
        ]
        return (*weights, *cases)

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    def summary(self) -> dict[str, Any]:
        """What the manifest keeps: the verdict and the worst figures of each target."""
        return {
            "passed": self.passed,
            "failures": list(self.failures),
            "noise": self.noise,
            "noise_factor": NOISE_FACTOR,
            "notes": list(self.notes),
            "weights": None if self.weights is None else self.weights.to_dict(),
            "targets": {
                target: {
                    "cases": len(results),
                    "positions": sum(result.positions for result in results),
                    "max_abs": max(result.max_abs for result in results),
                    "worst_ratio": max(result.worst_ratio for result in results),
                    "top1_agreement": min(result.top1_agreement for result in results),
                    "non_finite": sum(result.non_finite for result in results),
                }
                for target, results in self.targets.items()
            },
        }

    def to_dict(self) -> dict[str, Any]:
        """The summary with every case."""
        cases = {target: [result.to_dict() for result in results] for target, results in self.targets.items()}
        return self.summary() | {"cases": cases}


@dataclass(frozen=True, slots=True)
class Shown:
    """What is compared: ids, the mask of positions that count, and how the case calls itself."""

    name: str
    mask: NDArray[np.bool_]
    note: str = ""


def compare(case: Shown, reference: Logits, candidate: Logits, tolerance: Tolerance) -> CaseResult:
    """The candidate's logits beside the reference's, both (batch, sequence, vocabulary), a few positions at a time.

    Positions outside the case's mask count for nothing. An error is never raised for a wrong candidate: it is a
    result that did not pass.
    """
    batch, sequence = case.mask.shape
    empty = CaseResult(
        name=case.name,
        batch=batch,
        sequence=sequence,
        positions=int(case.mask.sum()),
        note=case.note,
        scale=0.0,
        limit=0.0,
        limit_source=tolerance.source,
        max_abs=0.0,
        worst_ratio=0.0,
        worst_index=(0, 0, 0),
        top1_agreement=1.0,
        top1_ties=0,
        non_finite=0,
    )
    if candidate.shape != reference.shape:
        return replace(empty, fault=f"the logits have shape {list(candidate.shape)}, not {list(reference.shape)}")
    if candidate.dtype != np.float32:
        return replace(empty, fault=f"the logits are {candidate.dtype}, not float32")
    scale = root_mean_square(reference, case.mask)
    limit = tolerance.limit(scale)
    max_abs, worst_index, differing, ties, non_finite = 0.0, (0, 0, 0), 0, 0, 0
    for row, positions in slices(case.mask, reference.shape[2]):
        expected, found = reference[row, positions], candidate[row, positions]
        with np.errstate(invalid="ignore"):
            error = np.abs(found - expected)
        worst = float(error.max())
        if not math.isfinite(worst):
            non_finite += int(np.count_nonzero(~np.isfinite(found)))
            error[~np.isfinite(error)] = 0
            worst = float(error.max())
        if worst > max_abs:
            at, token = np.unravel_index(int(error.argmax()), error.shape)
            max_abs, worst_index = worst, (row, int(positions[at]), int(token))
        differs, tied = _top1(expected, found, limit)
        differing, ties = differing + differs, ties + tied
    ratio = max_abs / limit if limit else (0.0 if max_abs == 0 else math.inf)
    return replace(
        empty,
        scale=rounded(scale),
        limit=rounded(limit),
        max_abs=rounded(max_abs),
        worst_ratio=rounded(min(ratio, 1e300)),
        worst_index=worst_index,
        top1_agreement=1 - differing / max(1, empty.positions),
        top1_ties=ties,
        non_finite=non_finite,
    )


def root_mean_square(logits: NDArray[np.floating[Any]], mask: NDArray[np.bool_]) -> float:
    """The root mean square of the logits at the positions of the mask."""
    total, count = 0.0, 0
    for row, positions in slices(mask, logits.shape[2]):
        flat = logits[row, positions].reshape(-1)
        total, count = total + float(np.dot(flat, flat)), count + flat.size
    return math.sqrt(total / count) if count else 0.0


def slices(mask: NDArray[np.bool_], vocab_size: int) -> list[tuple[int, NDArray[np.intp]]]:
    """The masked positions as (row, positions) pairs of few positions each, so that memory stays bounded."""
    step = max(1, _SLICE_ELEMENTS // vocab_size)
    return [
        (row, positions[start : start + step])
        for row in range(mask.shape[0])
        for positions in [np.flatnonzero(mask[row])]
        for start in range(0, len(positions), step)
    ]


def rounded(value: float) -> float:
    """`value` to four significant digits: what reports keep, so that they do not vary with the last bits of a sum."""
    return float(f"{value:.4g}")


def _top1(expected: Logits, found: Logits, limit: float) -> tuple[int, int]:
    """How many positions choose another token, and of these how many are ties, which then do not count as other."""
    best, chosen = expected.argmax(axis=1), found.argmax(axis=1)
    at = np.arange(len(best))
    margin = expected[at, best] - expected[at, chosen]
    other = chosen != best
    ties = other & (margin <= 2 * limit)
    return int(np.count_nonzero(other & ~ties)), int(np.count_nonzero(ties))
