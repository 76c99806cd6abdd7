"""tokenizer.json in transformers.js: the ids of tiktoken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from gpt_export_models.tokenizer import Gpt2Tokenizer

from tests.consumers.exported import Exported
from tests.consumers.javascript.conftest import Script
from tests.fuzzed_texts import fuzzed_texts


@pytest.fixture(scope="module")
def found(ask: Script, exported: Callable[[str], Exported]) -> dict[str, Any]:
    return dict(ask("tokenize", {"folder": str(exported("gpt2").folder), "texts": fuzzed_texts()}))


def test_ids_are_tiktokens(found: dict[str, Any]) -> None:
    texts, tokenizer = fuzzed_texts(), Gpt2Tokenizer()
    assert len(texts) >= 10_000
    differing = [text for text, ids in zip(texts, found["ids"], strict=True) if ids != tokenizer.encode(text)]
    assert differing == []


def test_texts_come_back(found: dict[str, Any]) -> None:
    assert found["texts"] == fuzzed_texts()


def test_where_javascript_differs_by_definition_it_is_known(ask: Script, exported: Callable[[str], Exported]) -> None:
    # The list leaves these out; if an engine ever agrees on them, the docs are to say so.
    texts = ["a \x85b", "a \ufeffb", "<|endoftext|>"]
    answer = ask("tokenize", {"folder": str(exported("gpt2").folder), "texts": texts})
    assert [ids == Gpt2Tokenizer().encode(text) for text, ids in zip(texts, answer["ids"], strict=True)] == [False] * 3
