"""Feeding a graph a few tokens at a time."""

from __future__ import annotations

import itertools

import numpy as np
import onnxruntime as ort
import pytest
from gpt_export.runtime import decoding as decoding_module
from gpt_export.runtime.decoding import RecomputedDecoding
from gpt_export.runtime.grown_cache import GrownDecoding
from gpt_export.runtime.session import Session
from gpt_export.runtime.shared_cache import SharedDecoding

from tests import samples
from tests.byte_gpt import CONTEXT, byte_gpt
from tests.tolerances import LIMITS


@pytest.fixture(scope="module", params=["ort", "portable"])
def session(request: pytest.FixtureRequest) -> Session:
    return Session.open(request.getfixturevalue("byte_original" if request.param == "ort" else "byte_portable"))


def ids_of(batch: int, length: int) -> np.ndarray:
    return samples.random_ids(batch, length, vocab=257)


def feed(session: Session, ids: np.ndarray, chunks: tuple[int, ...], mask: np.ndarray | None = None) -> np.ndarray:
    mask = np.ones_like(ids) if mask is None else mask
    running, cuts = session.decoding(len(ids)), np.cumsum((0, *chunks))
    return np.concatenate([running.feed(ids[:, a:b], mask[:, a:b]) for a, b in itertools.pairwise(cuts)], axis=1)


def off_by(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("chunks", [(17,), (1,) * 17, (5, 1, 11), (16, 1)])
@pytest.mark.parametrize(
    ("artifact", "decoding"),
    [("byte_original", SharedDecoding), ("byte_portable", GrownDecoding), ("byte_uncached", RecomputedDecoding)],
)
def test_any_chunks_give_eagers_logits(
    chunks: tuple[int, ...], artifact: str, decoding: type, request: pytest.FixtureRequest
) -> None:
    ids = ids_of(3, 17)
    running = Session.open(request.getfixturevalue(artifact))
    assert isinstance(running.decoding(1), decoding)
    assert off_by(feed(running, ids, chunks), samples.eager_logits(byte_gpt(), ids)) <= LIMITS["relative"]


def test_the_context_may_be_filled_to_its_last_position(session: Session) -> None:
    ids = ids_of(1, CONTEXT)
    wanted = samples.eager_logits(byte_gpt(), ids)
    assert off_by(feed(session, ids, (CONTEXT - 1, 1)), wanted) <= LIMITS["relative"]


@pytest.mark.parametrize("chunks", [(9,), (4, 5), (1,) * 9])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_row_equals_the_row_alone(chunks: tuple[int, ...], side: str, session: Session) -> None:
    ids, mask = ids_of(2, 9), np.ones((2, 9), np.int64)
    mask[1, slice(0, 6) if side == "left" else slice(3, 9)] = 0
    found = feed(session, ids, chunks, mask)
    for row in range(2):
        seen = mask[row].astype(bool)
        wanted = samples.eager_logits(byte_gpt(), ids[row : row + 1, seen])[0]
        assert off_by(found[row, seen], wanted) <= LIMITS["relative"]


def test_what_is_under_the_padding_does_not_matter(session: Session) -> None:
    ids, mask = ids_of(1, 8), np.ones((1, 8), np.int64)
    mask[0, :3] = 0
    other = ids.copy()
    other[0, :3] = 5
    first, second = (feed(session, each, (4, 4), mask)[:, 3:] for each in (ids, other))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("pieces", [1, 4, 256])
def test_a_long_prompt_is_fed_in_pieces_with_the_same_end(
    pieces: int, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding_module, "PREFILL_TOKENS", pieces)
    ids = ids_of(2, 11)
    found = session.decoding(2).feed_for_last(ids, np.ones_like(ids))
    assert found.shape == (2, 257)
    assert off_by(found, samples.eager_logits(byte_gpt(), ids)[:, -1]) <= LIMITS["relative"]


def test_only_logits_are_copied_to_numpy(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[list[int]] = []
    original = ort.OrtValue.numpy
    monkeypatch.setattr(ort.OrtValue, "numpy", lambda self: copied.append(list(self.shape())) or original(self))
    running = session.decoding(2)
    for length in (4, 1, 1):
        ids = ids_of(2, length)
        running.feed(ids, np.ones_like(ids))
    assert copied == [[2, 4, 257], [2, 1, 257], [2, 1, 257]]


@pytest.mark.parametrize("padding", [0, 1, 5])
@pytest.mark.parametrize("pieces", [3, 256])
def test_prompts_of_unequal_length_end_as_if_they_were_alone(
    padding: int, pieces: int, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding_module, "PREFILL_TOKENS", pieces)
    ids, mask = ids_of(2, 11), np.ones((2, 11), np.int64)
    mask[1, :padding] = 0
    running = session.decoding(2)
    step = ids_of(2, 12)[:, -1:]
    found = [running.feed_for_last(ids, mask), running.feed_for_last(step, np.ones_like(step))]
    for row in range(2):
        alone = np.concatenate([ids[row : row + 1, mask[row].astype(bool)], step[row : row + 1]], axis=1)
        wanted = samples.eager_logits(byte_gpt(), alone)[0, -2:]
        assert off_by(np.stack([each[row] for each in found]), wanted) <= LIMITS["relative"]


def test_two_decodings_of_a_session_do_not_meet(session: Session) -> None:
    first, second = ids_of(1, 6), ids_of(1, 7)[:, 1:]
    running = [session.decoding(1), session.decoding(1)]
    found = [[], []]
    for at in range(6):
        for i, ids in enumerate((first, second)):
            found[i].append(running[i].feed(ids[:, at : at + 1], np.ones((1, 1), np.int64)))
    for parts, ids in zip(found, (first, second), strict=True):
        wanted = samples.eager_logits(byte_gpt(), ids)
        assert off_by(np.concatenate(parts, axis=1), wanted) <= LIMITS["relative"]
