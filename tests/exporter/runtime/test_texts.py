"""A session that is handed texts: encoding, continuing, scoring, going on by turns; none of it with torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gpt_export.errors import ContextError, InputError, TextError
from gpt_export.runtime.conversation import Conversation
from gpt_export.runtime.generation import GenerationConfig
from gpt_export.runtime.session import Session

from tests import samples
from tests.byte_gpt import CONTEXT, byte_gpt
from tests.test_imports import WITHOUT


@pytest.fixture(scope="module")
def session(byte_original: Path) -> Session:
    return Session.open(byte_original, verify=False)


def test_text_goes_in_and_comes_out_in_pieces(session: Session) -> None:
    ids = [int(chosen[0]) for chosen in session.generate([list(b"ab")], max_new_tokens=6, stop_ids=[256])]
    pieces = list(session.text("ab", max_new_tokens=6))
    assert "".join(pieces) == session.decode([token for token in ids if token != 256])
    assert len(pieces) > 1
    stop = pieces[-1]
    assert list(session.text("ab", max_new_tokens=6, stops=stop)) == pieces[: pieces.index(stop)]


def test_encode_and_decode_are_the_artifacts_tokenizer(session: Session) -> None:
    assert session.encode("aü") == [97, 0xC3, 0xBC]
    assert session.decode(np.array([97, 0xC3, 0xBC])) == "aü"
    with pytest.raises(TextError, match="shorten the text"):
        session.encode("a" * (CONTEXT + 1))
    with pytest.raises(InputError, match="one row of whole numbers"):
        session.decode([[1], [2]])


def test_a_score_is_eagers_log_probability_of_each_token(session: Session) -> None:
    text = "in the beginning was the word"
    ids = np.array([list(text.encode())])
    logits = samples.eager_logits(byte_gpt(), ids)[0].astype(np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    expected = (shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))[np.arange(len(text) - 1), ids[0, 1:]]
    found = session.score(text)
    assert (found.shape, found.dtype) == ((len(text) - 1,), np.float64)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(found - session.score(text[::-1])).max() > 0.1  # the control: another text has other scores


def test_a_score_in_chunks_and_without_a_cache_is_the_same(
    session: Session, byte_uncached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "a text of thirty characters..."
    whole = session.score(text)
    np.testing.assert_allclose(Session.open(byte_uncached).score(text), whole, atol=1e-4)
    monkeypatch.setattr("gpt_export.runtime.decoding.PREFILL_TOKENS", 7)
    np.testing.assert_allclose(session.score(text), whole, atol=1e-4)


def test_an_artifact_of_ids_alone_says_so(ids_alone: Path) -> None:
    alone = Session.open(ids_alone)
    for call in (
        lambda: alone.encode("a"),
        lambda: alone.decode([1]),
        lambda: alone.text("a"),
        lambda: alone.score("a"),
    ):
        with pytest.raises(InputError, match="no tokenizer, it is for ids alone"):
            call()


def test_texts_need_no_torch(byte_original: Path) -> None:
    code = (
        WITHOUT
        + "from gpt_export.runtime import Session\nsession = Session.open(sys.argv[2])\n"
        + "print(len(session.encode('ab')), ''.join(session.text('ab', max_new_tokens=3)), session.score('ab').shape)"
    )
    absent = "torch,onnx,onnx_ir,transformers,rich,click"
    run = subprocess.run(
        [sys.executable, "-c", code, absent, str(byte_original)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.endswith("(1,)\n")


def greedy(session: Session, ids: list[int], count: int) -> list[int]:
    return [int(chosen[0]) for chosen in session.generate([ids], max_new_tokens=count)]


@pytest.mark.parametrize("cached", [True, False])
def test_each_turn_goes_on_from_all_that_was_said(byte_original: Path, byte_uncached: Path, cached: bool) -> None:
    session = Session.open(byte_original if cached else byte_uncached, verify=False)
    conversation = Conversation(session, None, GenerationConfig(max_new_tokens=4))
    said = [97, 98]
    first = "".join(conversation.answer("97 98"))
    assert [int(word) for word in first.split()] == greedy(session, said, 4)
    said += [int(word) for word in first.split()] + [99]
    second = "".join(conversation.answer("99"))
    assert [int(word) for word in second.split()] == greedy(session, said, 4)
    said += [int(word) for word in second.split()]
    assert [int(word) for word in "".join(conversation.answer("")).split()] == greedy(session, said, 4)
    assert conversation.room == CONTEXT - len(said) - 4


def test_an_answer_that_is_stopped_stays_said(session: Session) -> None:
    conversation = Conversation(session, None, GenerationConfig(max_new_tokens=9))
    told: list[str] = []
    for piece in conversation.answer("97 98", stopped=lambda: len(told) == 3):
        told.append(piece)
    said = [97, 98, *(int(word) for word in told)]
    assert len(said) == 5
    assert [int(word) for word in "".join(conversation.answer("99")).split()] == greedy(session, [*said, 99], 9)


def test_a_full_context_says_so_and_begins_anew(session: Session) -> None:
    conversation = Conversation(session, None, GenerationConfig(max_new_tokens=60))
    with pytest.raises(ContextError, match=f"the context of {CONTEXT} tokens is full"):
        list(conversation.answer("97 98"))
    conversation.restart()
    assert conversation.room == CONTEXT
    with pytest.raises(InputError, match="nothing to continue yet"):
        next(conversation.answer(""))
