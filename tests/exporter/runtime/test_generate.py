"""`Session.generate`: ids in, one id a row a step out."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from gpt_export.errors import ContextError, InputError
from gpt_export.runtime.session import Session
from gpt_export_models.tokenizer import pad

from tests import samples
from tests.byte_gpt import CONTEXT, byte_gpt


@pytest.fixture(scope="module")
def session(byte_original: Path) -> Session:
    return Session.open(byte_original)


def ids_of(batch: int, length: int) -> np.ndarray:
    return samples.random_ids(batch, length, vocab=257)


def eager_greedy(ids: np.ndarray, steps: int) -> np.ndarray:
    """What eager continues with when every step runs everything again."""
    for _ in range(steps):
        ids = np.concatenate([ids, samples.eager_logits(byte_gpt(), ids)[:, -1:].argmax(-1)], axis=1)
    return ids[:, -steps:]


def run(session: Session, ids: np.ndarray, **settings: object) -> np.ndarray:
    return np.stack(list(session.generate(ids, **settings)), axis=1)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("cached", [True, False])
def test_greedy_is_eagers_greedy(batch: int, cached: bool, session: Session, byte_uncached: Path) -> None:
    running = session if cached else Session.open(byte_uncached)
    ids = ids_of(batch, 5)
    assert run(running, ids, max_new_tokens=12).tolist() == eager_greedy(ids, 12).tolist()


def test_a_left_padded_row_continues_as_it_does_alone(session: Session) -> None:
    rows = [[1, 2, 3, 4, 5, 6], [200], [9, 8, 7]]
    ids, mask = pad(rows, side="left", pad_id=0)
    found = run(session, ids, attention_mask=mask, max_new_tokens=10)
    for row, new in zip(rows, found, strict=True):
        assert new.tolist() == eager_greedy(np.array([row]), 10)[0].tolist()


@pytest.mark.parametrize("steps", [0, 1, 7])
def test_there_are_exactly_as_many_steps_as_asked_for(session: Session, steps: int) -> None:
    found = list(session.generate(ids_of(2, 3), max_new_tokens=steps))
    assert len(found) == steps
    assert all(chosen.shape == (2,) and chosen.dtype == np.int64 for chosen in found)


def test_steps_come_one_at_a_time(session: Session) -> None:
    steps = session.generate(ids_of(1, 3), max_new_tokens=10**9)
    assert len(list(itertools.islice(steps, 4))) == 4


def test_a_stop_id_ends_a_row_and_every_row_ends_the_steps(session: Session) -> None:
    ids = ids_of(3, 5)
    free = run(session, ids, max_new_tokens=14)
    stop_ids = {int(free[0, 2]), int(free[1, 6]), int(free[2, 4])}
    found = run(session, ids, max_new_tokens=14, stop_ids=stop_ids)
    ends = [next(i for i, token in enumerate(row.tolist()) if token in stop_ids) for row in free]
    assert found.shape[1] == max(ends) + 1
    for row, alone, end in zip(found, free, ends, strict=True):
        assert row[: end + 1].tolist() == alone[: end + 1].tolist()
        assert set(row[end:].tolist()) == {int(alone[end])}  # a row that waits says its stop id again


def test_a_stop_id_in_the_prompt_stops_nothing(session: Session) -> None:
    ids = ids_of(1, 5)
    stop = next(i for i in ids[0].tolist() if i not in eager_greedy(ids, 6))
    assert run(session, ids, max_new_tokens=6, stop_ids=[stop]).tolist() == eager_greedy(ids, 6).tolist()


def test_the_context_can_be_filled_and_then_says_so(session: Session) -> None:
    ids = ids_of(2, CONTEXT - 3)
    steps = session.generate(ids, max_new_tokens=50)
    assert len(list(itertools.islice(steps, 4))) == 4  # the last one needs no place in the context
    with pytest.raises(ContextError) as caught:
        next(steps)
    assert str(caught.value) == (
        "the context of 40 tokens is full after 4 new ones; ask for 4 instead of 50, or start from a shorter prompt"
    )
    assert caught.value.exit_code == 1
    assert len(list(session.generate(ids, max_new_tokens=4))) == 4


def test_a_seed_gives_the_same_tokens_and_another_one_others(session: Session) -> None:
    ids, settings = ids_of(3, 4), {"max_new_tokens": 10, "temperature": 1.5}
    first = run(session, ids, seed=5, **settings).tolist()
    assert run(session, ids, seed=5, **settings).tolist() == first
    assert run(session, ids, seed=6, **settings).tolist() != first
    assert run(session, ids[:1], seed=5, **settings).tolist() == first[:1]


def test_without_a_seed_no_two_runs_are_alike(session: Session) -> None:
    runs = [run(session, ids_of(1, 4), max_new_tokens=12, temperature=3.0).tolist() for _ in range(2)]
    assert runs[0] != runs[1]


def test_sampled_first_tokens_have_the_models_distribution(session: Session) -> None:
    ids = ids_of(1, 6)
    wanted = samples.eager_logits(byte_gpt(), ids)[0, -1].astype(np.float64) / 2.0
    wanted = np.exp(wanted - wanted.max())
    wanted /= wanted.sum()
    chosen = next(session.generate(np.tile(ids, (3000, 1)), max_new_tokens=1, temperature=2.0, seed=0))
    counts = np.bincount(chosen, minlength=257)
    often = wanted > 5 / 3000
    chi2 = float(((counts[often] - 3000 * wanted[often]) ** 2 / (3000 * wanted[often])).sum())
    assert chi2 < often.sum() + 5 * np.sqrt(2 * often.sum())


def test_top_k_1_and_a_tiny_top_p_are_greedy(session: Session) -> None:
    ids = ids_of(2, 4)
    for cut in ({"top_k": 1}, {"top_p": 1e-6}):
        assert run(session, ids, max_new_tokens=8, temperature=1.0, **cut).tolist() == eager_greedy(ids, 8).tolist()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_new_tokens": -1}, "max_new_tokens -1 is out of range"),
        ({"max_new_tokens": 2.0}, "max_new_tokens 2.0 is out of range; pass a whole number"),
        ({"temperature": -1.0}, "temperature -1.0 is out of range"),
        ({"top_k": 0}, "top_k 0 is out of range"),
        ({"top_p": 2.0}, "top_p 2.0 is out of range"),
        ({"seed": -1}, "seed -1 is out of range"),
        ({"attention_mask": [[1, 0]]}, "a row ends in padding, so there is no token to continue; pad on the left"),
        ({"attention_mask": [[1]]}, r"attention_mask must hold 0 and 1 in the shape \[1, 2\] of the ids"),
        ({"attention_mask": [[1, 1], [1]]}, "attention_mask must hold 0 and 1"),
        ({"stop_ids": 5}, "stop_ids 5 are no collection of ids; pass whole numbers"),
        ({"stop_ids": "ab"}, "stop_ids 'ab' are no collection of ids"),
        ({"stop_ids": [1.5]}, "stop_ids"),
        ({"temperature": 0, "top_k": 3}, "temperature 0 takes the likeliest token, so there is nothing for top_k"),
        ({"repetition_penalty": 0}, "repetition_penalty 0 is out of range"),
        ({"attention_mask": [[2, 1]]}, "attention_mask must hold 0 and 1"),
    ],
)
def test_bad_settings_are_refused_before_the_first_step(session: Session, settings: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        session.generate(ids_of(1, 2), **({"max_new_tokens": 3} | settings))


@pytest.mark.parametrize("ids", [[1, 2], [[257]], [[-1]], [[]], [[1.0]], [[0] * (CONTEXT + 1)]])
def test_bad_ids_are_refused_before_the_first_step(session: Session, ids: list) -> None:
    with pytest.raises(InputError):
        session.generate(np.array(ids), max_new_tokens=3)


def test_a_graph_without_a_mask_takes_no_padding(byte_uncached: Path) -> None:
    with pytest.raises(InputError, match="takes no attention mask; pass rows of one length"):
        Session.open(byte_uncached).generate([[0, 1]], attention_mask=[[0, 1]], max_new_tokens=1)
