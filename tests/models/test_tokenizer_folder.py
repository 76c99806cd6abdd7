"""Tokenizers of folders, against transformers' own reading of the same files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from gpt_export_models import tokenizer_folder
from gpt_export_models.carried_tokenizer import open_carried
from gpt_export_models.errors import CheckpointError
from gpt_export_models.tokenizer import Gpt2Tokenizer
from gpt_export_models.tokenizer_folder import find_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from tests.fuzzed_texts import fuzzed_texts
from tests.models.test_carried_tokenizer import gpt2_files

transformers = pytest.importorskip("transformers", reason="transformers is the oracle: pip install transformers")

assert gpt2_files  # a fixture
VOCAB = 60_000
SPELLED = ("<s>", "</s>", "[PAD]", "<|endoftext|>", "<|im_start|>", " word", "Straße", "[CLS]", "[UNK]", "[MASK]")
TEXTS = [
    *fuzzed_texts(240),
    *(f"{a}{text}{b}" for text in SPELLED for a in ("", "x", " ", "x  ") for b in ("", "y", " ", "  y")),
]
TOKEN = {"__type": "AddedToken", "lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
DECODER = {
    "50256": TOKEN | {"content": "<|endoftext|>", "special": True, "normalized": True},
    "50257": TOKEN | {"content": "[PAD]", "special": True, "lstrip": True},
    "50258": TOKEN | {"content": "Straße", "special": False, "rstrip": True},
    "50259": TOKEN | {"content": " word", "special": False, "single_word": True},
    "50260": TOKEN | {"content": "<s>", "special": False, "normalized": True},
}
OLD: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "a class": {"tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer"}},
    "begins with a token": {"tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True}},
    "ends with a token": {"tokenizer_config.json": {"add_eos_token": True, "eos_token": "<|endoftext|>"}},
    "a space before": {"tokenizer_config.json": {"add_prefix_space": True}},
    "special tokens in their map alone": {
        "special_tokens_map.json": {"pad_token": "[PAD]", "bos_token": TOKEN | {"content": "<s>", "rstrip": True}}
    },
    "added tokens": {"added_tokens.json": {"[PAD]": 50257, "<s>": 50258}},
    "added tokens, one of them special": {
        "added_tokens.json": {"[PAD]": 50257, "<|im_start|>": 50258},
        "special_tokens_map.json": {"pad_token": "[PAD]"},
    },
    "added tokens with settings": {
        "tokenizer_config.json": {
            "added_tokens_decoder": DECODER,
            "pad_token": "[PAD]",
            "tokenizer_class": "GPT2Tokenizer",
        }
    },
}
"""What lies beside vocab.json and merges.txt, as transformers wrote it before version 5."""


def written(folder: Path, files: Mapping[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            (folder / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


def check(folder: Path, vocab_size: int = VOCAB) -> None:
    """The ids are transformers', with special tokens as text and as tokens, from the folder and from the artifact."""
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    found = find_tokenizer(folder, vocab_size)
    assert found.tokenizer is not None, found.notes
    artifact = folder / "artifact"
    artifact.mkdir()
    for file in found.carried:
        (artifact / file.name).write_bytes(file.read_bytes())
    written(artifact, found.made)
    opened = open_carried(sorted(artifact.iterdir()), vocab_size)
    assert opened is not None
    for tokenizer in (found.tokenizer, opened):
        for text in TEXTS:
            assert tokenizer.encode(text) == theirs.encode(text, split_special_tokens=True), text
            assert tokenizer.encode(text, special=True) == theirs.encode(text), text


@pytest.mark.parametrize("layout", OLD)
@pytest.mark.parametrize("names", [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")])
def test_ids_of_vocabulary_and_merges_are_transformers(
    layout: str, names: tuple[str, str], gpt2_files: Path, tmp_path: Path
) -> None:
    files = {name: (gpt2_files / name).read_bytes() for name in ("vocab.json", "merges.txt")}
    config = {"config.json": {"model_type": "gpt2"}}
    folder = written(tmp_path / "hf", files | config | OLD[layout])
    check(folder)
    renamed = dict(zip(names, files.values(), strict=True))
    other = find_tokenizer(written(tmp_path / "openai", renamed | config | OLD[layout]), VOCAB)
    assert other.tokenizer is not None
    same = find_tokenizer(folder, VOCAB).tokenizer
    assert same is not None
    assert all(other.tokenizer.encode(text, special=True) == same.encode(text, special=True) for text in TEXTS)


@pytest.mark.parametrize("layout", OLD)
def test_ids_of_what_transformers_writes_today_are_its_own(layout: str, gpt2_files: Path, tmp_path: Path) -> None:
    files = {name: (gpt2_files / name).read_bytes() for name in ("vocab.json", "merges.txt")}
    config = {"config.json": {"model_type": "gpt2"}}
    old = written(tmp_path / "old", files | config | OLD[layout])
    written(tmp_path / "new", config)
    transformers.AutoTokenizer.from_pretrained(old).save_pretrained(tmp_path / "new")
    check(tmp_path / "new")


def wordpiece() -> Tokenizer:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "every", "effort", "##s", *map(chr, range(97, 123))]
    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    made.decoder = decoders.WordPiece()
    made.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return made


@pytest.mark.parametrize("settings", [{}, {"do_lower_case": False}, {"strip_accents": True, "model_max_length": 9}])
def test_ids_of_a_word_list_are_transformers(settings: dict[str, Any], tmp_path: Path) -> None:
    vocabulary = wordpiece().get_vocab()
    words = "\n".join(sorted(vocabulary, key=lambda word: vocabulary[word]))
    config = {
        "tokenizer_config.json": {"tokenizer_class": "BertTokenizer"} | settings,
        "config.json": {"model_type": "gpt2"},
    }
    check(written(tmp_path, config | {"vocab.txt": words}), 50257)
    assert "tokenizer.json was made from vocab.txt by transformers" in find_tokenizer(tmp_path, 50257).notes


def test_settings_beside_a_tokenizer_json_that_its_class_obeys_are_obeyed(tmp_path: Path) -> None:
    made = Tokenizer(models.WordLevel({"a": 0, "b": 1, "<s>": 2, "[UNK]": 3}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "bos_token": "<s>"}
    folder = written(tmp_path, {"tokenizer.json": made.to_str(), "tokenizer_config.json": config})
    written(folder, {"config.json": {"model_type": "gpt2"}})
    check(folder)
    found = find_tokenizer(folder, 4)
    assert found.tokenizer is not None
    assert "tokenizer.json was completed by what transformers makes of the settings beside it" in found.notes
    assert "the tokenizer has [PAD] beyond the model's vocabulary of 4; such ids are refused" in found.notes


def test_a_tokenizer_json_that_says_everything_is_carried_byte_for_byte(tmp_path: Path) -> None:
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=wordpiece(), unk_token="[UNK]", pad_token="[PAD]")
    made.save_pretrained(tmp_path)
    written(tmp_path, {"config.json": {"model_type": "gpt2"}})
    found = find_tokenizer(tmp_path, 40)
    assert found.made == {}
    assert (tmp_path / "tokenizer.json") in found.carried
    check(tmp_path, 40)


@pytest.mark.parametrize(
    "layout",
    [name for name in OLD if name not in ("added tokens with settings", "begins with a token", "ends with a token")],
)
def test_without_transformers_the_files_say_the_same(
    layout: str, gpt2_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {name: (gpt2_files / name).read_bytes() for name in ("vocab.json", "merges.txt")}
    folder = written(tmp_path, files | {"config.json": {"model_type": "gpt2"}} | OLD[layout])
    wanted = find_tokenizer(folder, VOCAB).tokenizer
    monkeypatch.setattr(tokenizer_folder, "_may_ask", lambda *_: False)
    found = find_tokenizer(folder, VOCAB).tokenizer
    assert wanted is not None
    assert found is not None
    assert all(found.encode(text) == wanted.encode(text) for text in TEXTS)


SEEN: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "vocab.txt without a class": ({"vocab.txt": "[UNK]\na\nb"}, "is in vocab.txt, from which no tokenizer.json"),
    "a SentencePiece model that is none": (
        {"spiece.model": b"\x0a\x0e\x0a\x05<unk>\x15", "tokenizer_config.json": {"tokenizer_class": "T5Tokenizer"}},
        "is in spiece.model of a T5Tokenizer, from which no tokenizer.json could be made: ",
    ),
    "a class alone": (
        {"tokenizer_config.json": {"tokenizer_class": "BertTokenizer"}},
        "is in tokenizer_config.json of a BertTokenizer, from which no tokenizer.json could be made; ",
    ),
    "a class in config.json": ({"config.json": {"tokenizer_class": "BertTokenizer"}}, "of a BertTokenizer"),
    "a vocabulary without merges": ({"vocab.json": {"a": 0}}, "is in vocab.json, from which no tokenizer.json"),
    "code of its own": (
        {
            "vocab.txt": "a\nb",
            "tokenizer_config.json": {
                "tokenizer_class": "OwnTokenizer",
                "auto_map": {"AutoTokenizer": ["own.OwnTokenizer", None]},
            },
        },
        "is in vocab.txt of a OwnTokenizer, from which no tokenizer.json could be made",
    ),
}


@pytest.mark.parametrize("vocab_size", [50257, 50304])
@pytest.mark.parametrize("name", SEEN)
def test_gpt2s_tokenizer_is_given_to_no_model_that_has_another(name: str, vocab_size: int, tmp_path: Path) -> None:
    files, said = SEEN[name]
    found = find_tokenizer(written(tmp_path, {"config.json": {"model_type": "gpt2"}} | files), vocab_size)
    assert found.tokenizer is None
    assert said in found.notes[-1]
    assert f"the tokenizer of this vocabulary of {vocab_size} is in" in found.notes[-1]
    assert found.notes[-1].endswith("the artifact is for ids alone")


@pytest.mark.parametrize("files", [{}, {"tokenizer_config.json": {"tokenizer_class": "GPT2TokenizerFast"}}])
def test_gpt2s_tokenizer_is_assumed_where_nothing_contradicts_it_and_that_is_said(files: Any, tmp_path: Path) -> None:
    found = find_tokenizer(written(tmp_path, {"config.json": {"model_type": "gpt2"}} | files), 50304)
    assert isinstance(found.tokenizer, Gpt2Tokenizer)
    assert found.notes == (
        "GPT-2's tokenizer was assumed, for the vocabulary has 50304 tokens and nothing says otherwise",
    )


READ = (
    ("unigram", "spiece.model", "T5Tokenizer"),
    ("unigram", "sentencepiece.bpe.model", "XLMRobertaTokenizer"),
    ("bpe", "tokenizer.model", "LlamaTokenizer"),
)
NOT_READ = (
    ("bpe", "spiece.model", "T5Tokenizer"),
    ("unigram", "tokenizer.model", "LlamaTokenizer"),
    ("unigram", "tokenizer.model", "GemmaTokenizer"),
)


@pytest.mark.parametrize(("kind", "name", "tokenizer_class"), [*READ, *NOT_READ])
def test_a_sentencepiece_model_is_read_as_sentencepiece_or_not_at_all(
    kind: str, name: str, tokenizer_class: str, tmp_path: Path
) -> None:
    sentencepiece = pytest.importorskip(
        "sentencepiece", reason="sentencepiece is the oracle: pip install sentencepiece"
    )
    model = tmp_path / name
    text = ["In the beginning God created the heaven and the earth.", "And the earth was without form, and void; 12345"]
    settings = {"vocab_size": 60, "model_type": kind, "hard_vocab_limit": False, "minloglevel": 3}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text * 40), model_prefix=str(model.with_suffix("")), **settings
    )
    original = sentencepiece.SentencePieceProcessor(model_file=str(model))
    config = {"tokenizer_config.json": {"tokenizer_class": tokenizer_class}, "config.json": {"model_type": "gpt2"}}
    found = find_tokenizer(written(tmp_path, config), 50257)
    if (kind, name, tokenizer_class) in NOT_READ:
        assert found.tokenizer is None
        assert f"is in {name} of a {tokenizer_class}, from which no tokenizer.json could be made" in found.notes[-1]
        assert "otherwise than sentencepiece" in found.notes[-1]
        return
    check(tmp_path, 50257)
    assert found.tokenizer is not None
    backend = found.tokenizer.backend  # type: ignore[attr-defined]
    for line in text:
        pieces = [backend.id_to_token(i) for i in found.tokenizer.encode(line, whole=False)]
        assert pieces == [original.id_to_piece(i) for i in original.encode(line)], line


def test_a_tokenizer_of_a_larger_vocabulary_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path, {"tokenizer.json": wordpiece().to_str(), "config.json": {"model_type": "gpt2"}})
    with pytest.raises(CheckpointError, match="has ids up to 33, the model's vocabulary ends at 9;"):
        find_tokenizer(folder, 10)


DAMAGE: tuple[Callable[[str], str], ...] = (lambda text: text[: len(text) // 2], lambda text: text.replace(":", ";", 1))


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"])
def test_damaged_files_are_one_sentence(damage: Callable[[str], str], name: str, tmp_path: Path) -> None:
    files = {
        "tokenizer.json": wordpiece().to_str(),
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"},
        "special_tokens_map.json": {"unk_token": "[UNK]"},
    }
    written(tmp_path, files)
    (tmp_path / name).write_text(damage((tmp_path / name).read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(CheckpointError) as caught:
        find_tokenizer(tmp_path, 40)
    assert "\n" not in str(caught.value)


def test_what_the_tokenizers_own_save_writes_is_carried_whatever_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=wordpiece(), unk_token="[UNK]")
    made.save_pretrained(tmp_path)
    written(tmp_path, {"config.json": {"model_type": "gpt2"}, "of_tomorrow.json": {"a": 1}, "not_its.json": {"b": 1}})
    own = transformers.PreTrainedTokenizerFast.save_pretrained

    def save(self: Any, folder: str, **how: Any) -> Any:
        written(Path(folder), {"of_tomorrow.json": {}})
        return own(self, folder, **how)

    monkeypatch.setattr(transformers.PreTrainedTokenizerFast, "save_pretrained", save)
    names = [file.name for file in find_tokenizer(tmp_path, 40).carried]
    assert "of_tomorrow.json" in names
    assert "not_its.json" not in names
