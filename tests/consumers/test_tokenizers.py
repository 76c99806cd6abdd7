"""The tokenizer's files in the programs that read them: tiktoken's ids on fuzzed Unicode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from gpt_export_models.tokenizer import END_OF_TEXT_ID, gpt2_encoding

from tests.consumers.conftest import Consumer
from tests.consumers.exported import Exported
from tests.fuzzed_texts import fuzzed_texts

READERS = ("tokenizers", "transformers", "transformers, in Python", "onnxruntime-genai")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return fuzzed_texts()


@pytest.fixture(scope="module")
def answer(consumer: Consumer, exported: Callable[[str], Exported], texts: list[str]) -> dict[str, Any]:
    found = consumer("tokenizer_ids", {"folder": str(exported("gpt2").folder), "texts": texts})
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("reader", READERS)
def test_ids_are_tiktokens(reader: str, answer: dict[str, Any], texts: list[str]) -> None:
    _, found = answer[reader]
    # onnxruntime-genai takes C strings, which end at U+0000
    chosen = [i for i, text in enumerate(texts) if reader != "onnxruntime-genai" or "\0" not in text]
    assert len({texts[i] for i in chosen}) > 10_000
    wrong = [i for i in chosen if found[i] != gpt2_encoding().encode_ordinary(texts[i])]
    assert [ascii(texts[i]) for i in wrong[:5]] == []


def test_batches_are_padded_on_the_left_by_the_end_of_text(answer: dict[str, Any]) -> None:
    assert answer["padding"] == ["left", END_OF_TEXT_ID, END_OF_TEXT_ID, 64]
