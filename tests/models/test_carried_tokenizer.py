"""Tokenizers that lie beside a checkpoint."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from gpt_export_models.carried_tokenizer import CarriedTokenizer, beyond_note, open_carried
from gpt_export_models.errors import CheckpointError, TextError
from gpt_export_models.tokenizer import END_OF_TEXT_ID, GPT2_VOCAB_SIZE, Gpt2Tokenizer, bpe_ranks, encode
from gpt_export_models.tokenizer import Tokenizer as Interface
from gpt_export_models.tokenizer_files import tokenizer_files_in
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from tests.byte_gpt import END, END_ID, byte_characters, byte_tokenizer

TEXTS = st.one_of(
    st.text(max_size=40),
    st.text(alphabet=" \n\tthe'sdrl 019.,!", max_size=60),
    st.lists(st.sampled_from([END, " the", "naïve", "日本語", "👩‍👩‍👧", "\x00", "'re"])).map("".join),
)


@pytest.fixture(scope="session")
def gpt2_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GPT-2's tokenizer in the files that Hugging Face has it in."""
    folder = tmp_path_factory.mktemp("gpt2")
    merges = files("gpt_export_models").joinpath("data/vocab.bpe").read_text("utf-8")
    characters = byte_characters()
    ids = {"".join(characters[byte] for byte in token): rank for token, rank in bpe_ranks(merges).items()}
    (folder / "merges.txt").write_text(merges, encoding="utf-8")
    (folder / "vocab.json").write_text(json.dumps(ids | {END: END_OF_TEXT_ID}), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def carried(gpt2_files: Path) -> CarriedTokenizer:
    return opened(gpt2_files)


def opened(folder: Path, vocab_size: int = GPT2_VOCAB_SIZE) -> CarriedTokenizer:
    tokenizer = open_carried(tokenizer_files_in(folder), vocab_size)
    assert tokenizer is not None
    return tokenizer


def save(folder: Path, tokenizer: Tokenizer, **changes: Any) -> Path:
    values = json.loads(tokenizer.to_str()) | changes
    (folder / "tokenizer.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


def refusal(folder: Path, vocab_size: int = GPT2_VOCAB_SIZE) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_carried(tokenizer_files_in(folder), vocab_size)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


@settings(max_examples=200, deadline=None)
@given(text=TEXTS)
def test_vocab_json_and_merges_are_gpt2s_tokenizer(carried: CarriedTokenizer, text: str) -> None:
    assert carried.encode(text) == Gpt2Tokenizer().encode(text)
    assert carried.decode(carried.encode(text)) == text


def test_gpt2s_own_end_of_text_is_found(carried: CarriedTokenizer) -> None:
    assert carried.end_of_text_id == carried.special_id(END) == END_OF_TEXT_ID
    assert carried.special_id("the") is None
    assert Gpt2Tokenizer().special_id(END) == END_OF_TEXT_ID
    assert Gpt2Tokenizer().special_id("the") is None
    assert carried.decode([END_OF_TEXT_ID]) == Gpt2Tokenizer().decode([END_OF_TEXT_ID]) == END


def test_transformers_reads_the_same_from_the_files(gpt2_files: Path, carried: CarriedTokenizer) -> None:
    transformers = pytest.importorskip("transformers", reason="an extra oracle; tiktoken's gpt2 covers the same")
    theirs = transformers.AutoTokenizer.from_pretrained(gpt2_files, tokenizer_type="gpt2")
    text = "Every effort moves you, naïvely: 日本語 👩‍👩‍👧\n\tdon't"
    assert carried.encode(text) == theirs(text)["input_ids"]


@pytest.mark.parametrize("kind", ["gpt2", "carried"])
@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.one_of(st.integers(0, 255), st.integers(0, 50400)), max_size=30))
def test_any_ids_stream_to_what_they_decode_to(carried: CarriedTokenizer, kind: str, ids: list[int]) -> None:
    tokenizer: Interface = Gpt2Tokenizer() if kind == "gpt2" else carried
    stream = tokenizer.stream()
    assert "".join([*(stream.feed(i) for i in ids), stream.end()]) == tokenizer.decode(ids)


@pytest.mark.parametrize("text", ["naïve 日本語 👩‍👩‍👧 é", "🚀", "Привет"])
def test_no_character_is_told_in_halves(text: str, tmp_path: Path) -> None:
    tokenizer = opened(save(tmp_path, byte_tokenizer()), 257)
    for each in (tokenizer, Gpt2Tokenizer()):
        stream = each.stream()
        pieces = [stream.feed(i) for i in each.encode(text)]
        assert "".join(pieces) == text
        assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)
    ids = tokenizer.encode(text)
    stream = tokenizer.stream()
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(stream.feed(i) for i in ids[:-1])
    assert stream.end() == "\N{REPLACEMENT CHARACTER}"  # cut in the middle: said at the end, once


def test_a_decoder_that_takes_back_what_it_told_still_streams(tmp_path: Path) -> None:
    made = Tokenizer(models.WordLevel(vocab={"a": 0, "-": 1, ">": 2}, unk_token="a"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    made.decoder = decoders.Sequence([decoders.Fuse(), decoders.Replace("->", "arrow")])
    tokenizer = opened(save(tmp_path, made))
    assert tokenizer.decode([0, 1, 2, 0]) == "aarrowa"
    stream = tokenizer.stream()
    assert "".join([*(stream.feed(i) for i in (0, 1, 2, 0)), stream.end()]) == "a->a"  # nothing lost, nothing twice


def test_truncation_and_padding_in_the_file_do_not_touch_prompts(tmp_path: Path) -> None:
    made = byte_tokenizer()
    made.enable_truncation(3)
    made.enable_padding(length=9)
    assert opened(save(tmp_path, made), 257).encode("abcdef") == [97, 98, 99, 100, 101, 102]


def test_the_tokens_that_a_post_processor_adds_are_added(tmp_path: Path) -> None:
    made = byte_tokenizer()
    made.post_processor = processors.TemplateProcessing(single=f"{END} $A", special_tokens=[(END, END_ID)])
    assert opened(save(tmp_path, made), 257).encode("ab") == [END_ID, 97, 98]


def test_a_text_that_spells_a_special_token_is_ordinary_text(tmp_path: Path) -> None:
    ids = opened(save(tmp_path, byte_tokenizer()), 257).encode(f"a{END}")
    assert ids == list(f"a{END}".encode())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", {"eos_token": "<stop>"}),
        ("tokenizer_config.json", {"eos_token": {"__type": "AddedToken", "content": "<stop>"}}),
        ("special_tokens_map.json", {"eos_token": "<stop>"}),
    ],
)
def test_the_end_of_text_is_the_one_that_the_settings_name(tmp_path: Path, name: str, content: dict[str, Any]) -> None:
    made = byte_tokenizer()
    made.add_special_tokens(["<stop>"])
    (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    tokenizer = opened(save(tmp_path, made), 258)
    assert tokenizer.end_of_text_id == tokenizer.special_id("<stop>") == 257
    assert tokenizer.special_id(END) == END_ID


def test_there_may_be_no_end_of_text(tmp_path: Path) -> None:
    made = Tokenizer(models.WordLevel(vocab={"a": 0, "b": 1}, unk_token="b"))
    assert opened(save(tmp_path, made)).end_of_text_id is None


def test_added_tokens_come_from_their_file(gpt2_files: Path, tmp_path: Path) -> None:
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((gpt2_files / name).read_bytes())
    (tmp_path / "added_tokens.json").write_text('{"<b>": 50258, "<a>": 50257}', encoding="utf-8")
    assert opened(tmp_path, 50259).encode("x<a><b>") == [87, 50257, 50258]
    (tmp_path / "added_tokens.json").write_text('{"<b>": 60000}', encoding="utf-8")
    assert "added_tokens.json gives '<b>' the id 60000, after vocab.json it is 50257; " in refusal(tmp_path, 70000)


def test_ids_beyond_the_models_vocabulary_are_refused(gpt2_files: Path, tmp_path: Path) -> None:
    assert refusal(save(tmp_path, byte_tokenizer()), 255) == (
        f"{tmp_path / 'tokenizer.json'} has ids up to 255, the model's vocabulary ends at 254;"
        " put the tokenizer there that the model was trained with, or none"
    )
    assert f"{gpt2_files / 'vocab.json'} has ids up to 50255" in refusal(gpt2_files, 50255)


def test_tokens_added_beyond_the_models_vocabulary_are_a_note_and_refused_when_used(tmp_path: Path) -> None:
    made = byte_tokenizer()
    made.add_special_tokens(["[PAD]"])
    made.add_tokens(["word"])
    tokenizer = opened(save(tmp_path, made), 257)
    assert tokenizer.encode("a[PAD]") == list(b"a[PAD]")
    assert tokenizer.special_id("[PAD]") is None
    for text, special in (("a[PAD]", True), ("a word", False)):
        with pytest.raises(TextError, match=r"which has the id 25[78], and the model's vocabulary ends at 256; leave"):
            tokenizer.encode(text, special=special)
    assert beyond_note(tokenizer.backend, 257) == (
        "the tokenizer has [PAD], word beyond the model's vocabulary of 257; such ids are refused",
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff\xfe",
        b'{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}}',
        b'{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": -1}, "unk_token": "a"}}',
        b'{"version": "1.0", "model": {"type": "Mystery", "vocab": {}}}',
    ],
)
def test_a_damaged_tokenizer_json_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    message = refusal(tmp_path)
    assert message.startswith(f"{tmp_path / 'tokenizer.json'} is not ")
    assert "download it again" in message


@settings(max_examples=200, deadline=None, derandomize=True)
@given(at=st.integers(0, 10**6), byte=st.integers(0, 255), length=st.integers(0, 10**6))
def test_damage_gives_a_tokenizer_or_a_named_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, byte: int, length: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged-tokenizer"
    folder.mkdir(exist_ok=True)
    whole = bytearray(byte_tokenizer().to_str().encode())
    whole[at % len(whole)] = byte
    (folder / "tokenizer.json").write_bytes(whole[: length % len(whole)] if length % 3 == 0 else whole)
    try:
        tokenizer = open_carried(tokenizer_files_in(folder), 257)
    except CheckpointError:
        return
    assert tokenizer is not None
    try:
        tokenizer.decode(tokenizer.encode("some text"))
    except TextError:
        return


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
def test_damaged_settings_are_one_sentence(tmp_path: Path, name: str) -> None:
    save(tmp_path, byte_tokenizer())
    (tmp_path / name).write_text("{", encoding="utf-8")
    assert f"{tmp_path / name} is not valid JSON" in refusal(tmp_path)


def test_a_damaged_vocabulary_or_merges_is_one_sentence(gpt2_files: Path, tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_bytes((gpt2_files / "vocab.json").read_bytes())
    (tmp_path / "merges.txt").write_text("#version: 0.2\nnot a merge at all\n", encoding="utf-8")
    assert f"{tmp_path / 'vocab.json'} and merges.txt do not make a tokenizer (" in refusal(tmp_path)
    (tmp_path / "merges.txt").write_bytes((gpt2_files / "merges.txt").read_bytes())
    (tmp_path / "vocab.json").write_text('{"a": ', encoding="utf-8")
    assert f"{tmp_path / 'vocab.json'} and merges.txt do not make a tokenizer (" in refusal(tmp_path)


def test_a_text_outside_the_vocabulary_is_one_sentence(tmp_path: Path) -> None:
    made = Tokenizer(models.WordLevel(vocab={"a": 0}, unk_token="none"))
    tokenizer = opened(save(tmp_path, made))
    with pytest.raises(TextError, match="the carried tokenizer has no ids for the text 'zzz' "):
        tokenizer.encode("zzz")


def test_text_that_is_no_unicode_is_refused(carried: CarriedTokenizer) -> None:
    for tokenizer in (carried, None):
        with pytest.raises(TextError, match=r"is not valid Unicode; pass it in UTF-8"):
            encode("a\udcff", 10, tokenizer)


NAMES = (
    *("added_tokens.json", "chat_template.jinja", "generation_config.json", "merges.txt", "special_tokens_map.json"),
    *("spiece.model", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt"),
)


def test_a_tokenizers_files_are_carried_and_nothing_else(tmp_path: Path) -> None:
    others = ("config.json", "model.safetensors", "meta.pkl", "README.md", "input.txt", "training_args.bin")
    for name in (*NAMES, *others, "tokenized_train.txt", "model.safetensors.index.json", "trainer_state.json"):
        (tmp_path / name).write_text("{}", encoding="utf-8")
    assert [path.name for path in tokenizer_files_in(tmp_path)] == list(NAMES)


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "generation_config.json", "tokenizer_config.json"])
def test_one_file_alone_is_no_tokenizer(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}", encoding="utf-8")
    assert open_carried(tokenizer_files_in(tmp_path), 100) is None
