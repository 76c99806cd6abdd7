"""The made tokenizer files give tiktoken's ids, whoever reads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gpt_export.targets.tokenizer_files import gpt2_merges, gpt2_tokenizer_json, gpt2_vocab_json, tokenizer_files
from gpt_export_models.carried_tokenizer import open_carried
from gpt_export_models.tokenizer import END_OF_TEXT_ID, GPT2_VOCAB_SIZE, gpt2_encoding
from tokenizers import Tokenizer

from tests.exporter.targets.manifests import GPT2, facts
from tests.fuzzed_texts import fuzzed_texts


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return fuzzed_texts()


@pytest.fixture(scope="module")
def expected(texts: list[str]) -> list[list[int]]:
    return gpt2_encoding().encode_ordinary_batch(texts, num_threads=2)


def test_there_are_ten_thousand_different_texts(texts: list[str]) -> None:
    assert len(set(texts)) > 10_000


def test_tokenizer_json_gives_tiktokens_ids(texts: list[str], expected: list[list[int]]) -> None:
    tokenizer = Tokenizer.from_str(gpt2_tokenizer_json().decode("utf-8"))
    assert [entry.ids for entry in tokenizer.encode_batch(texts)] == expected
    assert [tokenizer.decode(ids) for ids in expected] == texts


def test_vocab_and_merges_give_tiktokens_ids(tmp_path: Path, texts: list[str], expected: list[list[int]]) -> None:
    (tmp_path / "vocab.json").write_bytes(gpt2_vocab_json())
    (tmp_path / "merges.txt").write_bytes(gpt2_merges())
    tokenizer = open_carried([tmp_path / "vocab.json", tmp_path / "merges.txt"], GPT2_VOCAB_SIZE)
    assert tokenizer is not None
    assert list(map(tokenizer.encode, texts)) == expected


def test_the_texts_tell_tokenizers_apart(texts: list[str], expected: list[list[int]]) -> None:
    whole = json.loads(gpt2_tokenizer_json())
    whole["pre_tokenizer"]["add_prefix_space"] = True
    found = [entry.ids for entry in Tokenizer.from_str(json.dumps(whole)).encode_batch(texts)]
    assert sum(a != b for a, b in zip(found, expected, strict=True)) > 1000


def test_every_id_has_one_token_in_the_order_of_the_ids() -> None:
    vocabulary = json.loads(gpt2_vocab_json())
    assert list(vocabulary.values()) == list(range(GPT2_VOCAB_SIZE))
    tokenizer = Tokenizer.from_str(gpt2_tokenizer_json().decode("utf-8"))
    assert tokenizer.get_vocab() == vocabulary


def test_the_end_of_text_is_one_token_where_it_is_spelled() -> None:
    tokenizer = Tokenizer.from_str(gpt2_tokenizer_json().decode("utf-8"))
    assert tokenizer.encode("a<|endoftext|>").ids[-1] == END_OF_TEXT_ID


@pytest.mark.parametrize("vocab_size", [50257, 50304])
def test_transformers_pads_on_the_left_with_the_end_of_text(vocab_size: int, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is the oracle: pip install transformers")
    for name, content in tokenizer_files(facts(configuration=GPT2 | {"vocab_size": vocab_size})).items():
        (tmp_path / name).write_bytes(content)
    found = transformers.AutoTokenizer.from_pretrained(tmp_path)
    rows = found(["Every effort moves you", "Hello"], padding=True)
    assert rows["input_ids"] == [[6109, 3626, 6100, 345], [50256, 50256, 50256, 15496]]
    assert rows["attention_mask"][1] == [0, 0, 0, 1]
    assert found.model_max_length == 1024
