"""Feeding a graph whose cache has 8 bits: pieces, padding, rows, the end of the context, rows that change batches."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from gpt_export.bench.plan import BenchConfig, plan
from gpt_export.bench.run import _cache_bytes
from gpt_export.runtime.decoding import Decoding, Past
from gpt_export.runtime.grown_cache import GrownDecoding
from gpt_export.runtime.session import Session
from gpt_export.runtime.shared_cache import SharedDecoding

from tests import samples
from tests.conftest import Run
from tests.trained_gpt import CONFIG, TEXTS

CONTEXT = CONFIG.context_length
NAMES = ("fp32-kv8", "int8-kv8", "int4-kv8")
WITHIN = 0.02
"""Of the largest logit. A sum that ends in other bits may round a key or a value to the code beside it."""


@pytest.fixture(scope="module", params=NAMES)
def session(request: pytest.FixtureRequest, trained_kv8: Path) -> Session:
    return Session.open(trained_kv8, variant=request.param)


def ids_of(batch: int, length: int) -> np.ndarray:
    return samples.random_ids(batch, length, vocab=CONFIG.vocab_size)


def feed(running: Decoding, ids: np.ndarray, chunks: tuple[int, ...], mask: np.ndarray | None = None) -> np.ndarray:
    mask = np.ones_like(ids) if mask is None else mask
    cuts = itertools.pairwise(np.cumsum((0, *chunks)))
    return np.concatenate([running.feed(ids[:, a:b], mask[:, a:b]) for a, b in cuts], axis=1)


def off_by(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def test_the_buffers_are_codes(session: Session) -> None:
    running = session.decoding(2)
    assert isinstance(running, SharedDecoding)
    feed(running, ids_of(2, 9), (9,))
    arrays = running.past().arrays
    assert {array.dtype for array in arrays} == {np.dtype(np.int8)}
    assert all(np.abs(array.astype(int)).max() > 60 for array in arrays)


def test_it_is_the_float_cache_but_for_rounding(session: Session, trained_variants: Path) -> None:
    ids = ids_of(2, 40)
    wanted = Session.open(trained_variants, variant=session.variant.removesuffix("-kv8")).logits(ids)
    found = session.logits(ids)
    assert 0 < off_by(found, wanted) <= 5 * WITHIN


@pytest.mark.parametrize("chunks", [(1,) * 17, (5, 1, 11), (16, 1)])
def test_any_pieces_give_what_the_whole_gives(chunks: tuple[int, ...], session: Session) -> None:
    ids = ids_of(3, 17)
    assert off_by(feed(session.decoding(3), ids, chunks), session.logits(ids)) <= WITHIN


def test_the_context_may_be_filled_to_its_last_position(session: Session) -> None:
    ids = ids_of(1, CONTEXT)
    assert off_by(feed(session.decoding(1), ids, (CONTEXT - 2, 1, 1)), session.logits(ids)) <= WITHIN


@pytest.mark.parametrize("chunks", [(9,), (4, 5), (1,) * 9])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_row_equals_the_row_alone(chunks: tuple[int, ...], side: str, session: Session) -> None:
    ids, mask = ids_of(2, 9), np.ones((2, 9), np.int64)
    mask[1, slice(0, 6) if side == "left" else slice(3, 9)] = 0
    found = feed(session.decoding(2), ids, chunks, mask)
    for row in range(2):
        seen = mask[row].astype(bool)
        assert off_by(found[row, seen], session.logits(ids[row : row + 1, seen])[0]) <= WITHIN


def test_what_is_under_the_padding_does_not_matter(session: Session) -> None:
    ids, mask = ids_of(1, 8), np.ones((1, 8), np.int64)
    mask[0, :3] = 0
    other = ids.copy()
    other[0, :3] = 5
    first, second = (feed(session.decoding(1), each, (4, 4), mask)[:, 3:] for each in (ids, other))
    assert np.array_equal(first, second)


def test_later_tokens_and_other_rows_change_no_code(session: Session) -> None:
    """A scale for each channel, and none that depends on what is fed."""
    ids = ids_of(3, 12)
    alone, beside = session.decoding(1), session.decoding(3)
    feed(alone, ids[1:2, :7], (7,))
    feed(beside, ids, (12,))
    for one, three in zip(past_of(alone).arrays, past_of(beside).arrays, strict=True):
        steps = np.abs(one[0].astype(int) - three[1, :, :7].astype(int))
        assert steps.max() <= 1
        assert (steps > 0).mean() < 0.01


def past_of(running: Decoding) -> Past:
    assert isinstance(running, SharedDecoding)
    return running.past()


def test_rows_go_on_in_another_batch(session: Session) -> None:
    ids = ids_of(3, 12)
    together, first, second = session.decoding(3), session.decoding(2), session.decoding(1)
    wanted = feed(together, ids, (8, 1, 1, 1, 1))[:, -4:]
    feed(first, ids[:2, :8], (8,))
    feed(second, ids[2:, :8], (8,))
    joined = session.decoding(3)
    assert isinstance(joined, SharedDecoding)
    joined.resume(past_of(first).beside(past_of(second)))
    assert off_by(feed(joined, ids[:, 8:], (1,) * 4), wanted) <= WITHIN
    apart = session.decoding(1)
    assert isinstance(apart, SharedDecoding)
    apart.resume(past_of(joined).take([1]))
    assert np.array_equal(past_of(apart).arrays[0], past_of(joined).arrays[0][1:2])


def test_the_grown_cache_takes_codes_as_well(trained_kv8: Path) -> None:
    session = Session.open(trained_kv8, variant="fp32-kv8")
    assert session.cache is not None
    plain = ort.InferenceSession(str(trained_kv8 / "onnx" / "model_kv8.onnx"))
    ids = ids_of(1, 11)
    grown = GrownDecoding(plain, session.cache, 1, np.dtype(np.int8))
    assert off_by(feed(grown, ids, (6, 1, 4)), feed(session.decoding(1), ids, (6, 1, 4))) <= WITHIN


def test_generate_and_score_take_such_a_variant(cli: Callable[..., Run], trained_kv8: Path, tmp_path: Path) -> None:
    run = cli("generate", trained_kv8, TEXTS[0][:12], "--variant", "int4-kv8", "--max-new-tokens", 12, "--json")
    assert run.code == 0, run.err
    (found,) = run.json()["continuations"]
    assert len(found["ids"]) == 12
    text = tmp_path / "text.txt"
    text.write_text(TEXTS[0], encoding="utf-8")
    run = cli("score", trained_kv8, text, "--variant", "int8-kv8", "--workers", 1, "--json")
    assert run.code == 0, run.err


def test_bench_counts_a_byte_a_number(trained_kv8: Path, trained_variants: Path) -> None:
    planned = plan(BenchConfig(), CONTEXT)
    entries = [
        Session.open(folder, variant=name).manifest.variants[name]
        for folder, name in ((trained_kv8, "int4-kv8"), (trained_variants, "int4"))
    ]
    small, whole = (_cache_bytes(dict(entry), planned) for entry in entries)
    assert whole == 4 * small > 0
