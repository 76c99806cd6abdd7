"""How a token is drawn from logits, beside NumPy in float64 and transformers' own cuts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from gpt_export.errors import InputError
from gpt_export.runtime.sampling import Sampling, generators

DRAWS = 4000
ROW = np.array([0.5, 2.0, -1.0, 2.0, 0.0, 1.5, -3.0, 1.0], dtype=np.float32)


def expected(row: np.ndarray, temperature: float, top_k: int | None = None, top_p: float | None = None) -> np.ndarray:
    """The distribution to draw from, in float64: one token after the other taken in, the likeliest first."""
    scaled = row.astype(np.float64) / temperature
    order = sorted(range(len(row)), key=lambda i: (-scaled[i], i))[:top_k]
    powers = {i: math.exp(scaled[i] - scaled[order[0]]) for i in order}
    total = sum(powers.values())
    kept, held = [], 0.0
    for i in order:
        kept.append(i)
        held += powers[i] / total
        if top_p is not None and held >= top_p:
            break
    out = np.zeros(len(row))
    for i in kept:
        out[i] = powers[i] / sum(powers[j] for j in kept)
    return out


def drawn(sampling: Sampling, row: np.ndarray, seed: int = 0) -> np.ndarray:
    """How often each token came."""
    rngs = generators(seed, DRAWS)
    return np.bincount(sampling.choose(np.tile(row, (DRAWS, 1)), rngs), minlength=len(row))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_k", [None, 1, 3, 8, 99])
@pytest.mark.parametrize("top_p", [None, 0.05, 0.6, 0.95, 1.0])
def test_tokens_come_as_often_as_a_float64_oracle_says(
    temperature: float, top_k: int | None, top_p: float | None
) -> None:
    wanted = expected(ROW, temperature, top_k, top_p)
    counts = drawn(Sampling(temperature=temperature, top_k=top_k, top_p=top_p), ROW)
    assert set(np.flatnonzero(counts)) <= set(np.flatnonzero(wanted))
    may = wanted > 0
    chi2 = float(((counts[may] - DRAWS * wanted[may]) ** 2 / (DRAWS * wanted[may])).sum())
    assert chi2 < may.sum() - 1 + 5 * math.sqrt(2 * max(1, may.sum() - 1))  # mean and spread of chi-squared


def test_the_check_of_distributions_tells_another_temperature() -> None:
    wanted = expected(ROW, 1.25)
    counts = drawn(Sampling(temperature=1.0), ROW)
    assert float(((counts - DRAWS * wanted) ** 2 / (DRAWS * wanted)).sum()) > 7 + 5 * math.sqrt(14)


@pytest.mark.parametrize(("top_k", "top_p"), [(5, None), (None, 0.7), (40, 0.5), (1, None), (None, 1e-9)])
def test_what_may_be_drawn_is_what_transformers_leaves(top_k: int | None, top_p: float | None) -> None:
    transformers = pytest.importorskip("transformers", reason="an extra oracle; the float64 one covers the same")
    import torch

    row = np.random.default_rng(1).normal(0, 3, 200).astype(np.float32)
    scores = torch.from_numpy(row)[None] / 0.8
    if top_k:
        scores = transformers.TopKLogitsWarper(top_k)(None, scores)
    if top_p:
        scores = transformers.TopPLogitsWarper(top_p)(None, scores)
    theirs = torch.softmax(scores.double(), -1)[0].numpy()
    np.testing.assert_allclose(expected(row, 0.8, top_k, top_p), theirs, atol=1e-6)
    counts = drawn(Sampling(temperature=0.8, top_k=top_k, top_p=top_p), row)
    assert set(np.flatnonzero(counts)) <= set(np.flatnonzero(theirs))


def test_temperature_0_takes_the_first_of_the_likeliest() -> None:
    logits = np.stack([ROW, ROW[::-1], np.zeros_like(ROW)])
    chosen = Sampling(temperature=0).choose(logits, generators(0, 3))
    assert chosen.tolist() == Sampling().choose(logits, generators(1, 3)).tolist()
    assert chosen.tolist() == [1, 4, 0]
    assert chosen.dtype == np.int64


@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 5e-324])
def test_a_tiny_temperature_draws_the_likeliest(temperature: float) -> None:
    row = np.array([1, 30, -100, 29.9], dtype=np.float32)
    assert np.flatnonzero(drawn(Sampling(temperature=temperature), row)).tolist() == [1]


@pytest.mark.parametrize("cut", [{"top_k": 8}, {"top_p": 1.0}, {"min_p": 1e-9}])
def test_whoever_says_what_to_draw_from_gets_draws(cut: dict[str, float]) -> None:
    sampling = Sampling(**cut)
    assert sampling.temperature == 1
    assert len(np.flatnonzero(drawn(sampling, ROW))) == len(ROW)
    with pytest.raises(InputError, match=f"nothing for {next(iter(cut))} to draw from"):
        Sampling(temperature=0, **cut)


@pytest.mark.parametrize("min_p", [0.01, 0.3, 0.7, 1.0])
def test_min_p_and_the_penalty_are_those_of_transformers(min_p: float) -> None:
    transformers = pytest.importorskip("transformers", reason="it is the oracle: pip install 'gpt-export[hf]'")
    import torch

    ids = torch.tensor([[1, 5, 5]])
    scores = transformers.RepetitionPenaltyLogitsProcessor(1.3)(ids, torch.from_numpy(ROW.copy())[None])
    greedy = int(scores.argmax())
    scores = transformers.MinPLogitsWarper(min_p)(ids, scores / 0.8)
    theirs = torch.softmax(scores.double(), -1)[0].numpy()
    sampling = Sampling(temperature=0.8, min_p=min_p, repetition_penalty=1.3)
    seen = np.zeros((1, len(ROW)), bool)
    seen[0, [1, 5]] = True
    counts = np.bincount(
        sampling.choose(np.tile(ROW, (DRAWS, 1)), generators(0, DRAWS), np.tile(seen, (DRAWS, 1))), minlength=len(ROW)
    )
    assert set(np.flatnonzero(counts)) == set(np.flatnonzero(theirs > 0.001))
    np.testing.assert_allclose(counts / DRAWS, theirs, atol=0.05)
    assert Sampling(temperature=0, repetition_penalty=1.3).choose(ROW[None], generators(0, 1), seen) == [greedy]
    assert greedy != ROW.argmax()  # the control: the penalty changes the choice


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_refused(wrong: float) -> None:
    row = ROW.copy()
    row[3] = wrong
    for sampling in (Sampling(), Sampling(temperature=1.0)):
        with pytest.raises(InputError, match="the logits hold NaN or Inf"):
            sampling.choose(np.stack([ROW, row]), generators(0, 2))
    row[3] = -math.inf  # what a mask leaves
    assert Sampling().choose(row[None], generators(0, 1)) == [1]


def test_of_equally_likely_tokens_top_k_keeps_the_lowest_ids() -> None:
    assert np.flatnonzero(drawn(Sampling(temperature=1.0, top_k=3), np.zeros(9, np.float32))).tolist() == [0, 1, 2]


def test_huge_logits_overflow_nothing() -> None:
    row = np.array([3e38, 3e38, -3e38], dtype=np.float32)
    counts = drawn(Sampling(temperature=0.5, top_p=0.9), row)
    assert counts[2] == 0
    assert abs(counts[0] / DRAWS - 0.5) < 0.05


def test_a_row_draws_the_same_whatever_is_beside_it() -> None:
    logits = np.random.default_rng(0).normal(size=(4, 50)).astype(np.float32)
    sampling = Sampling(temperature=1.0)
    batch = sampling.choose(logits, generators(7, 4))
    assert sampling.choose(logits[:2], generators(7, 2)).tolist() == batch[:2].tolist()


def test_rows_draw_differently_and_so_do_seeds() -> None:
    row = np.zeros(1000, np.float32)
    sampling = Sampling(temperature=1.0)
    chosen = [tuple(sampling.choose(np.tile(row, (3, 1)), generators(seed, 3))) for seed in (0, 1, None, None)]
    assert len({token for row in chosen for token in row}) > 9


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("temperature", -0.1, "pass 0 for greedy, or a positive number"),
        ("temperature", math.nan, "pass 0 for greedy"),
        ("temperature", math.inf, "pass 0 for greedy"),
        ("top_k", 0, "pass at least 1, or leave it out"),
        ("top_k", -3, "pass at least 1"),
        ("top_p", 0.0, "pass a number above 0 and up to 1"),
        ("top_p", 1.1, "pass a number above 0 and up to 1"),
        ("top_p", math.nan, "pass a number above 0 and up to 1"),
    ],
)
def test_values_out_of_range_are_refused(name: str, value: float, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        Sampling(**{name: value})
    assert str(caught.value).startswith(f"{name} {value} is out of range; ")
