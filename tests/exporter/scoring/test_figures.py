"""Losses, divergences, sums and intervals, each beside a float64 NumPy of its own."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from gpt_export.scoring.bootstrap import Replicates
from gpt_export.scoring.divergence import compare
from gpt_export.scoring.exact_sum import ExactSum
from gpt_export.scoring.loss import LossGraph


def log_softmax(logits: np.ndarray) -> np.ndarray:
    rows = logits.astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))


@pytest.mark.parametrize(("positions", "vocabulary", "spread"), [(1, 2, 1.0), (33, 257, 5.0), (64, 50257, 3.0)])
def test_losses_are_those_of_float64(positions: int, vocabulary: int, spread: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(7, spread, (positions, vocabulary)).astype(np.float32)
    targets = rng.integers(0, vocabulary, positions)
    found, top = LossGraph(vocabulary, 1)(logits, targets)
    exact = log_softmax(logits)
    np.testing.assert_allclose(found, exact[np.arange(positions), targets], atol=8e-6)
    np.testing.assert_allclose(top, exact.max(axis=1), atol=8e-6)
    assert abs((found - exact[np.arange(positions), targets]).mean()) < 2e-6


def test_a_loss_beyond_float32_is_told_all_the_same() -> None:
    logits = np.array([[0, -200, 1], [0, 5, -80]], dtype=np.float32)
    found, _ = LossGraph(3, 1)(logits, np.array([1, 2]))
    np.testing.assert_allclose(found, log_softmax(logits)[[0, 1], [1, 2]], rtol=1e-6)


def test_a_comparison_is_that_of_float64() -> None:
    rng = np.random.default_rng(1)
    reference = rng.normal(0, 3, (50, 301)).astype(np.float32)
    logits = reference + rng.normal(0, 0.1, reference.shape).astype(np.float32)
    targets = rng.integers(0, 301, 50)
    found = compare(logits, reference, targets)
    p, q = log_softmax(reference), log_softmax(logits)
    np.testing.assert_allclose(found.kl, (np.exp(p) * (p - q)).sum(axis=1), rtol=1e-9)
    np.testing.assert_allclose(found.loss, -q[np.arange(50), targets], rtol=1e-12)
    np.testing.assert_allclose(found.reference_loss, -p[np.arange(50), targets], rtol=1e-12)
    assert (found.top == logits.argmax(axis=1)).all()


def test_equal_logits_do_not_diverge_and_a_shift_of_all_is_none() -> None:
    logits = np.random.default_rng(2).normal(0, 3, (5, 40)).astype(np.float32)
    assert compare(logits, logits, np.zeros(5, int)).kl.max() < 1e-14
    assert compare(logits + np.float32(4), logits, np.zeros(5, int)).kl.max() < 1e-12


def test_a_small_divergence_keeps_its_digits() -> None:
    reference = np.random.default_rng(3).normal(0, 3, (4, 500)).astype(np.float32)
    logits = reference.copy()
    logits[:, 0] += np.float32(1e-3)
    p = np.exp(log_softmax(reference))[:, 0]
    d = logits[:, 0].astype(np.float64) - reference[:, 0]
    np.testing.assert_allclose(compare(logits, reference, np.zeros(4, int)).kl, p * (1 - p) * d**2 / 2, rtol=2e-3)


def test_a_sum_is_exact_in_every_order() -> None:
    drawn = random.Random(4)
    values = [drawn.uniform(-1, 1) * 10.0 ** drawn.randrange(-18, 18) for _ in range(300)] + [5e-324, 1e308, -1e308]
    assert sum(values) != math.fsum(values)  # what is wrong without it
    for _ in range(3):
        drawn.shuffle(values)
        assert float(ExactSum(values)) == math.fsum(values)


def test_the_interval_has_the_width_of_the_standard_error() -> None:
    losses = np.random.default_rng(5).normal(3.0, 0.5, 2000)
    replicates = Replicates()
    replicates.add((0, 0), np.ones(2000), losses)
    low, high = (math.log(side) for side in replicates.perplexity() or ())
    error = losses.std() / math.sqrt(2000)
    assert low < losses.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_few_units_have_no_interval() -> None:
    replicates = Replicates()
    replicates.add((0, 0), np.ones(4), np.arange(4.0))
    assert replicates.perplexity() is None
