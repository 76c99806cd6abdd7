"""Prompts continued as text: where a piece ends, what stops it, what is kept when the context is full."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpt_export.errors import ContextError, InputError, TextError
from gpt_export.runtime.generation import Generation, GenerationConfig, parse_ids
from gpt_export.runtime.opening import open_generation
from gpt_export_models.tokenizer import Gpt2Tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.byte_gpt import END, END_ID

GPT2 = Gpt2Tokenizer()


class Scripted:
    """A session that says the given ids, whatever is asked, and stops as a session does."""

    vocab_size = 50257
    context_length = 1000

    def __init__(self, *rows: list[int], full_after: int = 10**9) -> None:
        self.rows, self.full_after = rows, full_after
        self.asked: dict[str, Any] = {}

    def generate(self, ids: np.ndarray, **asked: Any) -> Iterator[np.ndarray]:
        self.asked = {"ids": ids} | asked
        for step in range(asked["max_new_tokens"]):
            if step == self.full_after:
                raise ContextError("the context is full")
            yield np.array([row[min(step, len(row) - 1)] for row in self.rows])


def run(session: Scripted, *prompts: str, as_ids: bool = False, **config: Any) -> tuple[Generation, list[str]]:
    """The finished generation, and the pieces of each prompt."""
    generation = Generation(session, None if as_ids else GPT2, prompts, GenerationConfig(**config))
    told = [[] for _ in prompts]
    for i, piece in generation:
        told[i].append(piece)
    return generation, told


def say(text: str) -> Scripted:
    return Scripted(GPT2.encode(text))


def test_pieces_come_token_by_token_and_make_the_text() -> None:
    text = " one two three four"
    generation, (pieces,) = run(say(text), "zero", max_new_tokens=4)
    (continuation,) = generation.continuations
    assert pieces == [" one", " two", " three", " four"]
    assert continuation.to_dict() == {
        "prompt": "zero",
        "prompt_ids": GPT2.encode("zero"),
        "ids": GPT2.encode(text),
        "text": text,
        "stop": "length",
    }


@settings(max_examples=150, deadline=None)
@given(text=st.text(min_size=1, max_size=25), stops=st.lists(st.text(min_size=1, max_size=4), max_size=3))
def test_the_text_is_what_comes_before_the_first_stop(text: str, stops: list[str]) -> None:
    ids = GPT2.encode(text)
    generation, (pieces,) = run(Scripted(ids), "x", max_new_tokens=len(ids), stops=tuple(stops))
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    (continuation,) = generation.continuations
    assert continuation.text == "".join(pieces)
    if found:
        # whichever stop is complete first ends it; a later one may have begun before that
        assert continuation.stop == "stop"
        assert text.startswith(continuation.text)
        assert any(text[len(continuation.text) :].startswith(stop) for stop in stops)
        assert not any(stop in continuation.text for stop in stops)
    else:
        assert (continuation.text, continuation.stop) == (text, "length")


def test_a_stop_across_tokens_is_never_told_in_part() -> None:
    session = say(" one two\n\nQuestion: three")
    generation, (pieces,) = run(session, "x", max_new_tokens=20, stops=("\n\nQuestion:", "never"))
    assert "".join(pieces) == generation.continuations[0].text == " one two"
    assert generation.continuations[0].stop == "stop"


def test_what_looked_like_a_stop_is_told_once_it_is_none() -> None:
    _, (pieces,) = run(say(" a b c"), "x", max_new_tokens=3, stops=(" b d",))
    assert "".join(pieces) == " a b c"
    _, (pieces,) = run(say(" a b"), "x", max_new_tokens=2, stops=(" b d",))
    assert "".join(pieces) == " a b"


def test_end_of_text_stops_and_is_not_part_of_the_text() -> None:
    session = Scripted([*GPT2.encode(" one"), GPT2.end_of_text_id, 5, 6])
    generation, _ = run(session, "x", max_new_tokens=4)
    (continuation,) = generation.continuations
    assert (continuation.text, continuation.stop, continuation.ids[-1]) == (" one", "end-of-text", 50256)
    assert set(session.asked["stop_ids"]) == {50256}


def test_end_of_text_may_be_ignored() -> None:
    session = Scripted([*GPT2.encode(" one"), GPT2.end_of_text_id, *GPT2.encode(" two")])
    generation, _ = run(session, "x", max_new_tokens=3, ignore_end_of_text=True)
    assert generation.continuations[0].text == f" one{END} two"
    generation, _ = run(session, "x", max_new_tokens=3, ignore_end_of_text=True, stops=(END,))
    assert (generation.continuations[0].text, generation.continuations[0].stop) == (" one", "stop")


def test_rows_stop_on_their_own_and_all_of_them_end_the_generation() -> None:
    first, second = GPT2.encode(" a. b c d e f"), GPT2.encode(" a b c. d e f")
    generation, told = run(Scripted(first, second), "x", "y", max_new_tokens=50, stops=(".",))
    assert ["".join(pieces) for pieces in told] == [" a", " a b c"]
    assert [item.stop for item in generation.continuations] == ["stop", "stop"]
    assert [len(item.ids) for item in generation.continuations] == [2, 4]


def test_several_prompts_are_one_batch_padded_on_the_left() -> None:
    session = Scripted([1], [2])
    run(session, "Every effort moves you", "Every", max_new_tokens=1, temperature=0.5, top_k=4, top_p=0.5, seed=9)
    assert session.asked["ids"].tolist() == [[6109, 3626, 6100, 345], [0, 0, 0, 6109]]
    assert session.asked["attention_mask"].tolist() == [[1, 1, 1, 1], [0, 0, 0, 1]]
    assert {name: session.asked[name] for name in ("temperature", "top_k", "top_p", "seed")} == {
        "temperature": 0.5,
        "top_k": 4,
        "top_p": 0.5,
        "seed": 9,
    }


def test_a_full_context_keeps_what_there_was() -> None:
    ids = GPT2.encode("🚀 b c")
    session = Scripted(ids, full_after=2)
    generation = Generation(session, GPT2, ["x"], GenerationConfig(max_new_tokens=9))
    told = []
    with pytest.raises(ContextError, match="the context is full") as caught:
        told.extend(piece for _, piece in generation)
    (continuation,) = generation.continuations
    assert continuation.stop == "context"
    assert continuation.ids == ids[:2]
    assert continuation.text == GPT2.decode(ids[:2])
    assert caught.value.details() == {"continuations": [continuation.to_dict()]}


def test_ids_are_told_as_ids() -> None:
    generation, (pieces,) = run(Scripted([7, 8, 9]), "1 2,3", as_ids=True, max_new_tokens=5, stops=("9",))
    assert pieces == [" 7", " 8"]
    assert generation.continuations[0].to_dict() == {
        "prompt": "1 2,3",
        "prompt_ids": [1, 2, 3],
        "ids": [7, 8, 9],
        "text": None,
        "stop": "stop",
    }


@pytest.mark.parametrize("text", ["1 2 3", "1,2,3", " 1, 2\n3 "])
def test_ids_may_be_separated_by_commas_or_blanks(text: str) -> None:
    assert parse_ids(text, 4) == [1, 2, 3]


@pytest.mark.parametrize("text", ["", " ", "a", "1 -2", "1.5", "0x1", "1_0", "\u0661"])
def test_other_words_are_no_ids(text: str) -> None:
    with pytest.raises(InputError, match='is not a list of ids; pass whole numbers, such as "1 2 3"'):
        parse_ids(text, 10)


@pytest.mark.parametrize("text", ["10", "0 99999999999999999999999"])
def test_ids_outside_the_vocabulary_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="is outside the vocabulary; ids run from 0 to 9"):
        parse_ids(text, 10)


def test_an_empty_prompt_and_an_empty_stop_are_refused() -> None:
    with pytest.raises(TextError, match="the text '' gives no token"):
        Generation(Scripted([1]), GPT2, ["x", ""], GenerationConfig())
    with pytest.raises(InputError, match="a stop is empty; pass a text with at least one character"):
        GenerationConfig(stops=("",))


def test_an_artifacts_own_tokenizer_is_used(byte_original: Path) -> None:
    generation = open_generation(byte_original, ["ab"], GenerationConfig(max_new_tokens=6))
    list(generation)
    (continuation,) = generation.continuations
    assert continuation.prompt_ids == [97, 98]
    assert continuation.text == bytes(i for i in continuation.ids if i != END_ID).decode("utf-8", "replace")


def test_an_artifact_of_ids_alone_says_how_to_pass_ids(ids_alone: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_generation(ids_alone, ["ab"], GenerationConfig())
    assert str(caught.value) == (
        f'{ids_alone} has no tokenizer, it is for ids alone; pass ids, such as "1 2 3", with --ids'
    )
    assert len(list(open_generation(ids_alone, ["97 98"], GenerationConfig(max_new_tokens=3), as_ids=True))) == 3
