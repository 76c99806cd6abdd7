"""Rows that have ended leave their batch, and nobody else's tokens change by it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gpt_export.runtime import session as sessions
from gpt_export.runtime.decoding import PREFILL_TOKENS, alike
from gpt_export.runtime.generation import Generation, GenerationConfig
from gpt_export.runtime.seats import Seats, worth_leaving
from gpt_export.runtime.session import Session
from gpt_export_models.tokenizer import pad

from tests import samples
from tests.byte_gpt import CONTEXT

ROWS = [[1, 2, 3, 4, 5, 6, 7, 8], [200], [9, 8, 7], [77, 78], [5], [250, 3, 9, 9]]
LENGTHS = [3, 20, 6, 2, 9, 4]


@pytest.fixture(scope="module", params=["ort", "portable", "uncached"])
def session(request: pytest.FixtureRequest) -> Session:
    """A shared buffer, a cache that grows, and none."""
    fixtures = {"ort": "byte_original", "portable": "byte_portable", "uncached": "byte_uncached"}
    folder: Path = request.getfixturevalue(fixtures[request.param])
    return Session.open(folder)


@pytest.fixture
def seats(monkeypatch: pytest.MonkeyPatch) -> list[Seats]:
    """The batches that were made."""
    made: list[Seats] = []

    def keep(open_decoding: Callable[[int], object], rows: int) -> Seats:
        made.append(Seats(open_decoding, rows))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(sessions, "Seats", keep)
    return made


def rows_of(session: Session) -> list[list[int]]:
    return ROWS if session.cache else [row[:1] * 3 for row in ROWS]


def ended_after(lengths: list[int], taken: list[int]) -> Callable[[int], bool]:
    """Ends each row after so many ids; asked of every row behind every step."""

    def has_ended(row: int) -> bool:
        taken[row] += 1
        return taken[row] >= lengths[row]

    return has_ended


def continued(session: Session, rows: list[list[int]], lengths: list[int], **settings: object) -> list[list[int]]:
    ids, mask = pad(rows, side="left", pad_id=0)
    steps = session.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=max(lengths),
        has_ended=ended_after(lengths, [0] * len(rows)),
        **settings,  # type: ignore[arg-type]
    )
    found = np.stack(list(steps), axis=1)
    return [row[:length].tolist() for row, length in zip(found, lengths, strict=True)]


def test_rows_that_end_at_different_times_say_what_they_say_alone(session: Session, seats: list[Seats]) -> None:
    rows = rows_of(session)
    alone = [continued(session, [row], [length])[0] for row, length in zip(rows, LENGTHS, strict=True)]
    seats.clear()
    assert continued(session, rows, LENGTHS) == alone
    (batch,) = seats
    prompt = sum(len(row) for row in rows) if not session.cache else len(rows) * max(map(len, rows))
    to_the_end = len(rows) * (max(LENGTHS) - 1)
    needed = sum(length - 1 for length in LENGTHS)
    assert needed <= batch.work - prompt < 0.75 * to_the_end


def test_draws_are_those_of_the_same_rows_when_none_of_them_leaves(session: Session) -> None:
    rows = rows_of(session)
    draws = {"seed": 3, "temperature": 1.5}
    together = continued(session, rows, LENGTHS, **draws)
    stay = continued(session, rows, [max(LENGTHS)] * len(rows), **draws)
    assert together == [row[:length] for row, length in zip(stay, LENGTHS, strict=True)]


@pytest.mark.parametrize("session", ["ort", "portable"], indirect=True)
def test_a_row_goes_on_where_a_longer_one_that_has_ended_held_the_context(session: Session) -> None:
    rows = [samples.random_ids(1, CONTEXT - 2, vocab=257)[0].tolist(), [5], [6]]
    lengths = [1, 20, 20]
    alone = [continued(session, [row], [length])[0] for row, length in zip(rows, lengths, strict=True)]
    assert continued(session, rows, lengths) == alone


def test_texts_that_end_in_a_stop_of_theirs_leave_too(byte_original: Path, seats: list[Seats]) -> None:
    session = Session.open(byte_original)
    prompts = ["a", "bc", "d", "ef"]
    free = Generation(session, session.tokenizer, prompts, GenerationConfig(max_new_tokens=24))
    list(free)
    work = seats[-1].work
    stops = tuple({item.text[2:4] for item in free.continuations[1:] if item.text})
    stopped = Generation(session, session.tokenizer, prompts, GenerationConfig(max_new_tokens=24, stops=stops))
    list(stopped)
    assert [item.stop for item in stopped.continuations].count("stop") >= 3
    assert seats[-1].work < work


def test_long_prompts_are_read_beside_those_of_their_length() -> None:
    lengths = [PREFILL_TOKENS, 3, PREFILL_TOKENS - 10, 4, 100]
    mask = np.array([[0] * (PREFILL_TOKENS - n) + [1] * n for n in lengths])
    assert alike(mask) == [[0, 2], [4], [3, 1]]
    assert alike(mask[:, -3:]) == [[0, 1, 2, 3, 4]]


def test_prompts_read_in_groups_give_the_logits_of_one_batch(
    byte_portable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session.open(byte_portable)
    ids, mask = pad(ROWS, side="left", pad_id=0)
    whole = session.decoding(len(ids))
    first = whole.feed_for_last(ids, mask)
    monkeypatch.setattr("gpt_export.runtime.decoding.PREFILL_TOKENS", 8)
    assert len(alike(mask)) > 2
    grouped = session.decoding(len(ids))
    np.testing.assert_allclose(grouped.feed_for_last(ids, mask), first, atol=1e-5)
    new, ones = np.full((len(ids), 1), 7), np.ones((len(ids), 1), np.int64)
    np.testing.assert_allclose(grouped.feed_for_last(new, ones), whole.feed_for_last(new, ones), atol=1e-5)


@pytest.mark.parametrize(("going", "seated", "leaves"), [(4, 4, False), (3, 4, False), (2, 4, True), (1, 1, False)])
def test_rows_leave_when_half_of_them_have_ended(going: int, seated: int, leaves: bool) -> None:
    assert worth_leaving(going, seated) is leaves
