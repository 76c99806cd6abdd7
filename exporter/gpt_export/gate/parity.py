"""Arrays to verdicts: how far a candidate's logits are from the reference's. NumPy only; sums are in float64.

Differences are taken in the logits' own float32: of two numbers within a factor of two of each other the difference
is exact (Sterbenz, "Floating-Point Computation", 1974), and anything further apart is far over every limit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt_export.gate.limits import NOISE_FLOOR, Limits
from gpt_export.gate.report import CaseResult

Logits = NDArray[np.float32]

_SLICE_ELEMENTS = 512 * 1024
"""About 2 MB of float32: a slice and what is made of it stay in cache, and memory stays bounded."""
_WORKERS = 2
_SMALL_DIFFERENCE = 1e-2
"""Up to here d^4 / 24, which the series of exp leaves out, is below 1e-5 of d^2 / 2."""
LARGEST = 1e300
"""Stands for infinity and NaN in reports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """The limits, and the unit of the one that is relative to float32's own error.

    `noise` is the largest error of eager float32 against float64 over the root mean square of the logits, measured on
    this very model. `source` says on what: "probe" (a few positions, for all cases) or "case" (the case itself).
    """

    limits: Limits
    noise: float
    source: str = "probe"

    def at(self, scale: float) -> tuple[float, float]:
        """`(atol, rtol)` of a single logit where the logits have the root mean square `scale`."""
        if not self.limits.bounds_logits:
            return math.inf, 0.0
        if self.limits.noise_factor is None:
            return self.limits.atol or 0.0, self.limits.rtol or 0.0
        return self.limits.noise_factor * max(self.noise, NOISE_FLOOR) * scale, 0.0


@dataclass(frozen=True, slots=True)
class Shown:
    """What a comparison needs of a case: its name and note, which positions count, and the text's next tokens."""

    name: str
    mask: NDArray[np.bool_]
    note: str = ""
    targets: NDArray[np.int64] | None = None
    """For text, the token that follows each position, -1 where there is none; perplexity is taken over these."""


@dataclass(slots=True)
class _Sums:
    """What one slice of positions adds to the case."""

    max_abs: float = 0.0
    worst_ratio: float = 0.0
    worst_index: tuple[int, int, int] = (0, 0, 0)
    signal: float = 0.0
    noise: float = 0.0
    kl_sum: float = 0.0
    kl_max: float = 0.0
    other_top1: int = 0
    ties: int = 0
    other_top5: int = 0
    non_finite: int = 0
    expected_nll: float = 0.0
    found_nll: float = 0.0
    n_targets: int = 0


def compare(case: Shown, reference: Logits, candidate: Logits, tolerance: Tolerance) -> CaseResult:
    """The candidate's logits beside the reference's, both (batch, sequence, vocabulary), a few positions at a time.

    Positions outside the case's mask count for nothing. An error is never raised for a wrong candidate: it is a
    result that did not pass.
    """
    scale = root_mean_square(reference, case.mask)
    if fault := _incomparable(reference, candidate, scale):
        return CaseResult.faulty(case.name, case.mask.shape, case.note, fault)
    atol, rtol = tolerance.at(scale)
    tie = None if tolerance.limits.bounds_logits else (tolerance.limits.tie_nats or 0.0)
    by_position = np.zeros(case.mask.shape[1], np.float32)

    def measure(part: tuple[int, NDArray[np.intp]]) -> _Sums:
        row, positions = part
        targets = None if case.targets is None else case.targets[row, positions]
        sums, errors = _measure(reference[row, positions], candidate[row, positions], targets, atol, rtol, tie)
        at, token = sums.worst_index[1:]
        sums.worst_index = (row, int(positions[at]), token)
        np.maximum.at(by_position, positions, errors)
        return sums

    with ThreadPoolExecutor(_WORKERS) as pool:
        parts = list(pool.map(measure, slices(case.mask, reference.shape[2])))
    return _result(case, parts, by_position, tolerance, scale, reference.shape[2])


def _incomparable(reference: Logits, candidate: Logits, scale: float) -> str:
    """What keeps the two from being compared, in words; empty if nothing does."""
    if candidate.shape != reference.shape:
        return f"the logits have shape {list(candidate.shape)}, not {list(reference.shape)}"
    if candidate.dtype != np.float32:
        return f"the logits are {candidate.dtype}, not float32"
    if not math.isfinite(scale):
        return "the original's own logits hold NaN or Inf, so nothing can be said; look for it in the model"
    return ""


def _result(
    case: Shown, parts: Sequence[_Sums], by_position: Logits, tolerance: Tolerance, scale: float, vocab_size: int
) -> CaseResult:
    """What the slices of a case add up to, beside what is allowed."""
    atol, rtol = tolerance.at(scale)
    worst = max(parts, key=lambda sums: (sums.worst_ratio, sums.max_abs))
    count = int(case.mask.sum())
    signal, noise = sum(sums.signal for sums in parts), sum(sums.noise for sums in parts)
    n_targets = sum(sums.n_targets for sums in parts)
    return CaseResult(
        name=case.name,
        batch=case.mask.shape[0],
        sequence=case.mask.shape[1],
        positions=count,
        note=case.note,
        scale=rounded(scale),
        limit=rounded(atol + rtol * scale) if tolerance.limits.bounds_logits else None,
        limit_source=tolerance.source if tolerance.limits.noise_factor is not None else "given",
        max_abs=rounded(max(sums.max_abs for sums in parts)),
        worst_ratio=rounded(worst.worst_ratio),
        worst_index=worst.worst_index,
        sqnr_db=rounded(10 * math.log10(signal / noise)) if signal and noise else None,
        kl_mean=rounded(sum(sums.kl_sum for sums in parts) / count),
        kl_max=rounded(max(sums.kl_max for sums in parts)),
        top1_agreement=1 - sum(sums.other_top1 for sums in parts) / count,
        top1_ties=sum(sums.ties for sums in parts),
        top5_agreement=1 - sum(sums.other_top5 for sums in parts) / count,
        non_finite=sum(sums.non_finite for sums in parts),
        reference_perplexity=_perplexity(sum(sums.expected_nll for sums in parts), n_targets),
        candidate_perplexity=_perplexity(sum(sums.found_nll for sums in parts), n_targets),
        error_by_position=tuple(float(f"{error:.2g}") for error in by_position),
        perplexity_tokens=n_targets,
        perplexity_limit=tolerance.limits.perplexity_change,
        vocab_size=vocab_size,
        kl_limit=tolerance.limits.kl_mean,
        top1_limit=tolerance.limits.top1,
    )


def root_mean_square(logits: NDArray[np.floating[Any]], mask: NDArray[np.bool_]) -> float:
    """The root mean square of the logits at the positions of the mask."""
    total, count = 0.0, 0
    for row, positions in slices(mask, logits.shape[2]):
        flat = logits[row, positions].reshape(-1)
        total, count = total + _sum_of_squares(flat), count + flat.size
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
    """`value` to four significant digits: what reports keep, so that they do not vary with the last bits of a sum.

    JSON has no NaN and no infinity; either becomes the largest number there is in a report.
    """
    return float(f"{min(value, LARGEST):.4g}") if not math.isnan(value) else LARGEST


def _measure(
    expected: Logits,
    found: Logits,
    targets: NDArray[np.int64] | None,
    atol: float,
    rtol: float,
    tie: float | None = None,
) -> tuple[_Sums, Logits]:
    """What the positions of one slice add up to, and the largest error at each."""
    sums = _Sums()
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.abs(found - expected)
    if not math.isfinite(float(error.max())):
        broken = ~np.isfinite(found)
        sums.non_finite = int(np.count_nonzero(broken))
        found = np.where(broken, np.float32(-1e30), found)
        error[~np.isfinite(error)] = 0
    ratio = error if rtol == 0 else _in_units(error, np.float32(atol) + np.float32(rtol) * np.abs(expected))
    place = int(ratio.argmax())
    at, token = divmod(place, expected.shape[1])
    worst = float(ratio[at, token])
    sums.worst_ratio = worst if rtol else worst / atol if atol else (math.inf if worst else 0.0)
    sums.worst_index = (0, at, token)
    sums.max_abs = float(error.max())
    flat, difference = expected.reshape(-1), error.reshape(-1)
    sums.signal, sums.noise = _sum_of_squares(flat), _sum_of_squares(difference)
    _add_choices(sums, expected, found, (atol + rtol * float(np.abs(expected).max())) if tie is None else tie / 2)
    _add_divergence(sums, expected, found, targets)
    return sums, error.max(axis=1)


def _in_units(error: Logits, allowed: Logits) -> Logits:
    """`error / allowed`, where nothing is allowed 0 for no error and infinity for any."""
    return np.divide(error, allowed, out=np.where(error > 0, np.float32(np.inf), np.float32(0)), where=allowed > 0)


def _sum_of_squares(flat: NDArray[np.floating[Any]]) -> float:
    return float(np.einsum("i,i->", flat, flat, dtype=np.float64))


def _add_choices(sums: _Sums, expected: Logits, found: Logits, limit: float) -> None:
    """Counts positions that choose another token, or other five tokens, by more than both errors could explain."""
    at = np.arange(len(expected))
    left = expected.copy()
    top = np.empty((len(expected), min(5, expected.shape[1])), np.intp)
    for i in range(top.shape[1]):
        top[:, i] = left.argmax(axis=1)
        left[at, top[:, i]] = -np.inf
    chosen = found.argmax(axis=1)
    margin = expected[at, top[:, 0]] - expected[at, chosen]
    other = chosen != top[:, 0]
    sums.ties = int(np.count_nonzero(other & (margin <= 2 * limit)))
    sums.other_top1 = int(np.count_nonzero(other)) - sums.ties
    least = np.take_along_axis(found, top, axis=1).min(axis=1)
    rest = np.where(np.isneginf(left), -np.inf, found).max(axis=1)
    sums.other_top5 = int(np.count_nonzero(rest - least > 2 * limit))


def _add_divergence(sums: _Sums, expected: Logits, found: Logits, targets: NDArray[np.int64] | None) -> None:
    """KL(p || q) of the softmax distributions, and the negative log-likelihood of targets.

    With d the difference of the logits, KL = log E_p[exp d] - E_p[d]. Where d is small, E_p[exp d] - 1 is taken as
    E_p[d] + E_p[d^2 / 2 + d^3 / 6], so that nothing cancels; elements are float32 there, every sum is float64.
    """
    highest = expected.max(axis=1, keepdims=True)
    difference = found - expected
    if float(np.abs(difference).max()) <= _SMALL_DIFFERENCE:
        p = np.exp(expected - highest)
        total = p.sum(axis=1, dtype=np.float64)
        rest = difference * (np.float32(0.5) + difference * np.float32(1 / 6))
        rest *= difference
        mean = np.einsum("ij,ij->i", p, difference, dtype=np.float64) / total
        beyond = np.einsum("ij,ij->i", p, rest, dtype=np.float64) / total
        growth = mean + beyond
        log_growth = np.log1p(growth)
        kl = beyond + log_growth - growth
    else:
        a = (expected - highest).astype(np.float64)
        d = found.astype(np.float64) - expected
        p64 = np.exp(a)
        total = p64.sum(axis=1)
        lift = d.max(axis=1)
        log_growth = np.log(np.einsum("ij,ij->i", p64, np.exp(d - lift[:, None])) / total) + lift
        kl = log_growth - np.einsum("ij,ij->i", p64, d) / total
    kl = np.maximum(kl, 0)
    sums.kl_sum, sums.kl_max = float(kl.sum()), float(kl.max())
    if targets is not None and (known := np.flatnonzero(targets >= 0)).size:
        log_total = np.log(total[known]) + highest[known, 0]
        sums.expected_nll = float((log_total - expected[known, targets[known]]).sum())
        sums.found_nll = float((log_total + log_growth[known] - found[known, targets[known]]).sum())
        sums.n_targets = known.size


def _perplexity(nll: float, count: int) -> float | None:
    return rounded(math.exp(min(nll / count, 700))) if count else None
