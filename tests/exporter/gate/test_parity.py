"""`parity.compare` beside a float64 oracle that compares everything at once."""

from __future__ import annotations

import math

import numpy as np
import pytest
from gpt_export.gate.limits import LIMITS, NOISE_FLOOR
from gpt_export.gate.parity import Shown, Tolerance, compare, root_mean_square
from gpt_export.gate.report import CaseResult
from hypothesis import given, settings
from hypothesis import strategies as st

NOISE = 1e-6
FACTOR = LIMITS["fp32"].noise_factor
TOLERANCE = Tolerance(limits=LIMITS["fp32"], noise=NOISE)


def limit_at(scale: float, tolerance: Tolerance = TOLERANCE) -> float:
    atol, rtol = tolerance.at(scale)
    return atol + rtol * scale


def logits(batch: int = 2, sequence: int = 3, vocab: int = 7, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(batch, sequence, vocab)).astype(np.float32)


def all_of(array: np.ndarray) -> Shown:
    return Shown("case", np.ones(array.shape[:2], dtype=bool))


def judged(reference: np.ndarray, candidate: np.ndarray, mask: np.ndarray | None = None) -> CaseResult:
    case = all_of(reference) if mask is None else Shown("case", mask)
    return compare(case, reference, candidate, TOLERANCE)


@settings(max_examples=150, deadline=None)
@given(
    batch=st.integers(1, 4),
    sequence=st.integers(1, 9),
    vocab=st.integers(1, 40),
    seed=st.integers(0, 2**32),
    error=st.sampled_from([0.0, 1e-8, 1e-6, 1e-3, 10.0]),
)
def test_the_figures_are_those_of_float64(batch: int, sequence: int, vocab: int, seed: int, error: float) -> None:
    rng = np.random.default_rng(seed)
    reference = rng.normal(0, 3, (batch, sequence, vocab)).astype(np.float32)
    candidate = (reference + error * rng.normal(size=reference.shape)).astype(np.float32)
    mask = rng.random((batch, sequence)) < 0.7
    mask[0, 0] = True
    result = compare(Shown("case", mask), reference, candidate, TOLERANCE)

    expected, found = reference[mask].astype(np.float64), candidate[mask].astype(np.float64)
    difference = np.abs(found - expected)
    scale = math.sqrt((expected**2).mean())
    limit = FACTOR * NOISE * scale if NOISE > NOISE_FLOOR else FACTOR * NOISE_FLOOR * scale
    assert result.positions == mask.sum()
    assert result.max_abs == pytest.approx(difference.max(), rel=1e-3)
    assert result.scale == pytest.approx(scale, rel=1e-3)
    assert result.limit == pytest.approx(limit, rel=1e-3)
    assert result.worst_ratio == pytest.approx(difference.max() / limit, rel=2e-3)
    row, position, token = result.worst_index
    if difference.max():
        assert abs(float(candidate[row, position, token]) - float(reference[row, position, token])) == pytest.approx(
            difference.max()
        )
    best, chosen = expected.argmax(1), found.argmax(1)
    margin = expected[np.arange(len(best)), best] - expected[np.arange(len(best)), chosen]
    other = (best != chosen) & (margin > 2 * limit)
    assert result.top1_agreement == pytest.approx(1 - other.mean())
    assert result.passed == (difference.max() <= limit and not other.any())


def test_equal_logits_pass_with_nothing_to_explain() -> None:
    result = judged(logits(), logits())
    assert result.passed
    assert (result.max_abs, result.worst_ratio, result.non_finite, result.top1_agreement) == (0, 0, 0, 1)


def test_the_limit_is_where_passing_ends() -> None:
    reference = np.ones((1, 1, 4), dtype=np.float32)
    limit = limit_at(1.0)
    for factor, passes in ((0.9, True), (1.1, False)):
        candidate = reference.copy()
        candidate[0, 0, 2] += np.float32(factor * limit)
        assert judged(reference, candidate).passed is passes


def test_the_limit_follows_the_scale_of_the_logits() -> None:
    reference = logits()
    candidate = reference + np.float32(1e-5)
    assert not judged(reference, candidate).passed
    assert judged(1000 * reference, 1000 * reference + np.float32(1e-5)).passed


def test_the_limit_follows_the_noise_and_has_a_floor() -> None:
    noisy, exact = (Tolerance(limits=LIMITS["fp32"], noise=noise) for noise in (1e-4, 0.0))
    assert limit_at(2.0, noisy) == pytest.approx(FACTOR * 1e-4 * 2)
    assert limit_at(2.0, exact) == pytest.approx(FACTOR * NOISE_FLOOR * 2)


def test_the_floor_stays_far_below_a_thousandth() -> None:
    assert FACTOR * NOISE_FLOOR < 1e-4


def test_padded_positions_never_count() -> None:
    reference = logits()
    mask = np.array([[True, True, False], [True, False, False]])
    candidate = reference.copy()
    candidate[~mask] = np.nan
    result = judged(reference, candidate, mask)
    assert result.passed
    assert result.positions == 3
    assert result.scale == pytest.approx(math.sqrt((reference[mask].astype(float) ** 2).mean()), rel=1e-3)


def test_a_wrong_position_beside_padding_counts() -> None:
    reference = logits()
    mask = np.array([[True, True, False], [True, False, False]])
    candidate = reference.copy()
    candidate[1, 0, 4] += 1
    result = judged(reference, candidate, mask)
    assert not result.passed
    assert result.worst_index == (1, 0, 4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_logit_that_is_not_finite_fails_the_case(value: float) -> None:
    candidate = logits()
    candidate[1, 2, 3] = value
    result = judged(logits(), candidate)
    assert result.non_finite == 1
    assert not result.passed
    assert "1 logits are NaN or Inf" in result.explain()
    assert math.isfinite(result.max_abs)
    assert math.isfinite(result.worst_ratio)


def test_a_reference_that_is_not_finite_cannot_be_met() -> None:
    reference = logits()
    reference[0, 0, 0] = np.nan
    assert not judged(reference, logits()).passed
    assert not judged(reference, reference.copy()).passed


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_reference_that_is_not_finite_is_blamed_itself(value: float) -> None:
    reference = logits()
    reference[1, 2, 3] = value
    for candidate in (logits(), reference.copy()):
        result = judged(reference, candidate)
        assert not result.passed
        assert "the original's own logits hold NaN or Inf, so nothing can be said" in result.explain()
    mask = np.array([[True, True, True], [True, True, False]])
    assert judged(reference, logits(), mask).passed  # the control: padding is not looked at


def test_under_rtol_alone_zeros_may_be_zero_and_nothing_else() -> None:
    relative = Tolerance(limits=LIMITS["fp32"].overridden(rtol=1e-3), noise=NOISE)
    reference = logits()
    reference[0, 1, :4] = 0
    result = compare(all_of(reference), reference, reference.copy(), relative)
    assert result.passed
    assert result.worst_ratio == 0
    near = reference * np.float32(1.0005)
    assert compare(all_of(reference), reference, near, relative).passed
    near[0, 1, 2] = 1e-20
    assert not compare(all_of(reference), reference, near, relative).passed


def test_near_ties_are_told_apart_from_another_choice() -> None:
    reference = np.zeros((1, 2, 4), dtype=np.float32)
    reference[0, :, 3] = 100.0
    reference[0, 0, 1] = reference[0, 0, 2] = 200.0
    reference[0, 0, 1] += np.float32(2e-5)  # one unit in the last place above its neighbour
    candidate = reference.copy()
    candidate[0, 0, 1], candidate[0, 0, 2] = reference[0, 0, 2], reference[0, 0, 1]
    result = judged(reference, candidate)
    assert result.top1_ties == 1
    assert result.top1_agreement == 1
    assert result.passed

    candidate[0, 1, 0] = 101.0
    result = judged(reference, candidate)
    assert result.top1_ties == 1
    assert result.top1_agreement == 0.5
    assert not result.passed


@pytest.mark.parametrize("shape", [(2, 3, 6), (3, 2, 7), (2, 3), (0,)])
def test_another_shape_is_a_fault_that_names_both(shape: tuple[int, ...]) -> None:
    result = judged(logits(), np.zeros(shape, np.float32))
    assert not result.passed
    assert f"shape {list(shape)}, not [2, 3, 7]" in result.explain()


def test_another_dtype_is_a_fault() -> None:
    result = judged(logits(), logits().astype(np.float64))
    assert "float64, not float32" in result.explain()
    assert not result.passed


def test_logits_of_nothing_but_zero_pass_only_as_zero() -> None:
    zeros = np.zeros((1, 1, 3), np.float32)
    assert judged(zeros, zeros).passed
    assert not judged(zeros, zeros + np.float32(1e-30)).passed


def test_a_vocabulary_wider_than_a_slice_is_compared_to_its_end() -> None:
    reference = np.random.default_rng(1).normal(size=(2, 2, 600_000)).astype(np.float32)
    candidate = reference.copy()
    candidate[1, 1, -1] += 1
    assert judged(reference, candidate).worst_index == (1, 1, 599_999)
    assert root_mean_square(reference, np.ones((2, 2), bool)) == pytest.approx(1, abs=0.01)
