from __future__ import annotations

import hashlib
import inspect
import json
import socket
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import regex
import tiktoken.load
import tiktoken_ext.openai_public
from gpt_export_models.errors import GptExportError, TextError
from gpt_export_models.tokenizer import (
    END_OF_TEXT_ID,
    GPT2_VOCAB_SIZE,
    VOCAB_BPE_SHA256,
    bpe_ranks,
    encode,
    encode_batch,
    gpt2_encoding,
    pad,
    shorten,
)
from hypothesis import given, settings
from hypothesis import strategies as st

BATCH = ("Every effort moves you", "Every day holds a")
BATCH_IDS = [[6109, 3626, 6100, 345], [6109, 1110, 6622, 257]]
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""As in openai/gpt-2, src/encoder.py."""

texts = st.one_of(
    st.text(max_size=60),
    st.text(alphabet=st.characters(codec="ascii"), max_size=120),
    st.text(alphabet=" \n\t'stredl vm0123456789.,!?-", max_size=80),
    st.lists(st.sampled_from(["<|endoftext|>", " the", "naïve", "日本語", "👩‍👩‍👧", "\u200b", "\x00", "'re"])).map(
        "".join
    ),
)


@pytest.fixture(scope="module")
def vocabulary() -> bytes:
    return files("gpt_export_models").joinpath("data/vocab.bpe").read_bytes()


@pytest.fixture
def fresh_encoding() -> Iterator[None]:
    """The encoding is built anew in the test and again after it."""
    gpt2_encoding.cache_clear()
    yield
    gpt2_encoding.cache_clear()


class NaiveBPE:
    """openai/gpt-2's `encoder.py` once more: merges by repeated search for the best pair. Slow and plain."""

    def __init__(self, vocabulary: str) -> None:
        printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
        characters = {byte: chr(byte) for byte in printable}
        for byte in range(256):
            characters.setdefault(byte, chr(256 + len(characters) - len(printable)))
        self.characters = characters
        pairs = [tuple(line.split()) for line in vocabulary.split("\n")[1:-1]]
        self.ranks = {pair: rank for rank, pair in enumerate(pairs)}
        self.ids = {token: i for i, token in enumerate([*characters.values(), *("".join(pair) for pair in pairs)])}

    def encode(self, text: str) -> list[int]:
        found = []
        for word in regex.findall(GPT2_PATTERN, text):
            parts = [self.characters[byte] for byte in word.encode("utf-8")]
            while len(parts) > 1:
                at = min(range(len(parts) - 1), key=lambda i: self.ranks.get((parts[i], parts[i + 1]), 10**9))
                if (parts[at], parts[at + 1]) not in self.ranks:
                    break
                parts[at : at + 2] = [parts[at] + parts[at + 1]]
            found += [self.ids[part] for part in parts]
        return found


@pytest.fixture(scope="module")
def naive(vocabulary: bytes) -> NaiveBPE:
    return NaiveBPE(vocabulary.decode("utf-8"))


def test_the_embedded_vocabulary_has_the_sha256_that_tiktoken_pins(vocabulary: bytes) -> None:
    digest = hashlib.sha256(vocabulary).hexdigest()
    assert digest == VOCAB_BPE_SHA256
    source = inspect.getsource(tiktoken_ext.openai_public.gpt2)
    pinned = regex.search(r'vocab_bpe_hash="([0-9a-f]{64})"', source)
    assert pinned is not None
    assert pinned[1] == digest


def test_the_ranks_are_those_of_tiktokens_own_reader(
    vocabulary: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    (tmp_path / "vocab.bpe").write_bytes(vocabulary)
    naive = NaiveBPE(vocabulary.decode("utf-8"))
    (tmp_path / "encoder.json").write_text(json.dumps(naive.ids), encoding="utf-8")
    expected = tiktoken.load.data_gym_to_mergeable_bpe_ranks(
        str(tmp_path / "vocab.bpe"), str(tmp_path / "encoder.json")
    )
    assert bpe_ranks(vocabulary.decode("utf-8")) == expected


def test_the_encoding_is_tiktokens_gpt2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiktoken_ext.openai_public, "data_gym_to_mergeable_bpe_ranks", lambda **_: {})
    theirs = tiktoken_ext.openai_public.gpt2()
    encoding = gpt2_encoding()
    assert encoding.name == theirs["name"] == "gpt2"
    assert encoding.n_vocab == theirs["explicit_n_vocab"] == GPT2_VOCAB_SIZE
    assert encoding._pat_str == theirs["pat_str"]
    assert encoding._special_tokens == theirs["special_tokens"]
    assert encoding.eot_token == END_OF_TEXT_ID


def test_the_books_batch_has_the_books_ids() -> None:
    ids, mask = encode_batch(BATCH, 1024)
    assert ids.tolist() == BATCH_IDS
    assert ids.dtype == mask.dtype == np.int64
    assert mask.tolist() == [[1] * 4] * 2


@pytest.mark.usefixtures("fresh_encoding")
def test_texts_are_encoded_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def blocked(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("the tokenizer asked for the network")

    monkeypatch.setattr(socket, "socket", blocked)
    monkeypatch.setattr(socket, "create_connection", blocked)
    monkeypatch.setattr(socket, "getaddrinfo", blocked)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    assert encode(BATCH[0], 1024) == BATCH_IDS[0]


@settings(max_examples=400, deadline=None)
@given(text=texts)
def test_any_text_comes_back_from_its_ids(text: str) -> None:
    encoding = gpt2_encoding()
    ids = encoding.encode_ordinary(text)
    assert encoding.decode(ids) == text
    assert all(0 <= i < END_OF_TEXT_ID for i in ids)


@settings(max_examples=400, deadline=None)
@given(text=texts)
def test_any_text_has_the_ids_of_a_naive_bpe(naive: NaiveBPE, text: str) -> None:
    assert gpt2_encoding().encode_ordinary(text) == naive.encode(text)


def test_the_naive_bpe_tells_swapped_merges(vocabulary: bytes) -> None:
    lines = vocabulary.decode("utf-8").split("\n")
    lines[3], lines[3000] = lines[3000], lines[3]
    assert NaiveBPE("\n".join(lines)).encode("he") != gpt2_encoding().encode_ordinary("he")


@pytest.fixture(scope="module")
def hugging_face(vocabulary: bytes, naive: NaiveBPE) -> Any:
    tokenizers = pytest.importorskip("tokenizers", reason="an extra oracle; the naive BPE covers the same promise")
    pairs = [tuple(line.split()) for line in vocabulary.decode("utf-8").split("\n")[1:-1]]
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=naive.ids, merges=pairs))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return made


@settings(max_examples=200, deadline=None)
@given(text=texts)
def test_any_text_has_the_ids_of_hugging_faces_tokenizers(hugging_face: Any, text: str) -> None:
    assert gpt2_encoding().encode_ordinary(text) == hugging_face.encode(text).ids


def test_a_text_that_spells_a_special_token_is_ordinary_text() -> None:
    ids = encode("<|endoftext|>", 1024)
    assert END_OF_TEXT_ID not in ids
    assert len(ids) > 1


def test_shorter_rows_are_padded_on_the_right_and_masked() -> None:
    ids, mask = encode_batch(["Every effort moves you", "Every"], 1024)
    assert ids.tolist() == [BATCH_IDS[0], [6109, END_OF_TEXT_ID, END_OF_TEXT_ID, END_OF_TEXT_ID]]
    assert mask.tolist() == [[1, 1, 1, 1], [1, 0, 0, 0]]


def test_left_padding_ends_every_row_with_its_last_token() -> None:
    ids, mask = encode_batch(["Every effort moves you", "Every"], 1024, side="left")
    assert ids[:, -1].tolist() == [345, 6109]
    assert mask.tolist() == [[1, 1, 1, 1], [0, 0, 0, 1]]


@given(
    rows=st.lists(st.lists(st.integers(0, 50256), min_size=1, max_size=9), min_size=1, max_size=6),
    side=st.sampled_from(["left", "right"]),
)
def test_the_mask_gives_the_rows_back(rows: list[list[int]], side: str) -> None:
    ids, mask = pad(rows, side=side, pad_id=7)
    assert [row[keep.astype(bool)].tolist() for row, keep in zip(ids, mask, strict=True)] == rows
    assert (ids[mask == 0] == 7).all()
    assert mask.sum(axis=1).tolist() == [len(row) for row in rows]


def test_an_empty_text_is_refused() -> None:
    with pytest.raises(TextError, match="gives no token; pass a text with at least one character") as caught:
        encode_batch(["Every", ""], 1024)
    assert caught.value.exit_code == 2


def test_no_text_is_refused() -> None:
    with pytest.raises(TextError, match="no text to encode; pass at least one"):
        encode_batch([], 1024)


def test_a_text_past_the_context_is_refused_with_both_lengths() -> None:
    with pytest.raises(TextError) as caught:
        encode("Every " * 300, 16)
    assert "gives 301 tokens, the context is 16; shorten the text" in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_text_that_fills_the_context_is_taken() -> None:
    assert len(encode("Every effort moves you", 4)) == 4


@pytest.mark.usefixtures("fresh_encoding")
def test_an_altered_vocabulary_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, vocabulary: bytes) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "vocab.bpe").write_bytes(vocabulary[:-1])
    monkeypatch.setattr("gpt_export_models.tokenizer.files", lambda _package: tmp_path)
    with pytest.raises(GptExportError, match=r"the embedded vocabulary has SHA-256 .* reinstall"):
        gpt2_encoding()


@pytest.mark.usefixtures("fresh_encoding")
def test_a_missing_vocabulary_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("gpt_export_models.tokenizer.files", lambda _package: tmp_path)
    with pytest.raises(GptExportError, match=r"the embedded vocabulary cannot be read .* reinstall"):
        gpt2_encoding()


def test_long_texts_are_cut_in_messages() -> None:
    assert shorten("a" * 40) == "a" * 40
    assert shorten("a" * 41) == "a" * 39 + "…"
