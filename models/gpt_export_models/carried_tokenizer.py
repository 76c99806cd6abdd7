"""The tokenizer whose files lie beside a checkpoint, as Hugging Face saves it; read with their `tokenizers`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, pre_tokenizers
from tokenizers.decoders import DecodeStream
from tokenizers.models import BPE

from gpt_export_models.errors import CheckpointError, TextError
from gpt_export_models.json_files import read_json_object, read_json_text
from gpt_export_models.problems import some
from gpt_export_models.tokenizer import TextStream, shorten

WHOLE = "tokenizer.json"
VOCABULARY, MERGES = "vocab.json", "merges.txt"
SETTINGS, SPECIAL, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
CARRIED = (WHOLE, VOCABULARY, MERGES, SETTINGS, SPECIAL, ADDED, "generation_config.json")
"""The files that go into an artifact with the model."""
IGNORED: Mapping[str, str] = {
    "meta.pkl": "it is a pickle, which could run code",
    "tokenizer.model": "SentencePiece files are not read, save the tokenizer as tokenizer.json",
}
USUAL_END = "<|endoftext|>"


class CarriedTokenizer:
    """A tokenizer of Hugging Face's as a `gpt_export_models.tokenizer.Tokenizer`.

    It adds the special tokens that its post-processor adds, and neither cuts nor pads, whatever its file says.
    """

    name = "carried"

    def __init__(self, backend: Backend, end_of_text: str | None) -> None:
        self._backend = backend
        self.end_of_text = end_of_text
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True  # what spells one is ordinary text
        self.end_of_text_id = None if end_of_text is None else backend.token_to_id(end_of_text)
        self._special = {token.content: i for i, token in backend.get_added_tokens_decoder().items() if token.special}
        if end_of_text is not None and self.end_of_text_id is not None:
            self._special[end_of_text] = self.end_of_text_id

    def encode(self, text: str) -> list[int]:
        """See `Tokenizer.encode`."""
        try:
            return list(self._backend.encode(text).ids)
        except Exception as error:  # the library raises plain Exception
            raise TextError(
                f"the carried tokenizer has no ids for the text {shorten(text)!r} ({some([error])});"
                " keep to characters of its vocabulary"
            ) from error

    def special_id(self, text: str) -> int | None:
        """See `Tokenizer.special_id`."""
        return self._special.get(text)

    def decode(self, ids: Sequence[int]) -> str:
        """See `Tokenizer.decode`."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=False)

    def stream(self) -> TextStream:
        """See `Tokenizer.stream`."""
        return _Stream(self._backend)

    def to_json(self) -> str:
        """The text of a `tokenizer.json` that holds this tokenizer."""
        return self._backend.to_str()


class _Stream:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._restart()

    def _restart(self) -> None:
        self._stream = DecodeStream(skip_special_tokens=False)
        self._ids: list[int] = []
        self._told = 0

    def feed(self, token_id: int) -> str:
        self._ids.append(token_id)
        try:
            piece = self._stream.step(self._backend, token_id) or ""
        except Exception:  # a decoder that rewrites what it has told: go on without that
            self._restart()
            return self.feed(token_id)
        self._told += len(piece)
        return piece

    def end(self) -> str:
        rest = self._backend.decode(self._ids, skip_special_tokens=False)[self._told :]
        self._restart()
        return rest


def carried_files(folder: Path) -> tuple[Path, ...]:
    """The files in `folder` that belong to a tokenizer, or say how to generate."""
    return tuple(folder / name for name in CARRIED if (folder / name).is_file())


def ignored_notes(folder: Path) -> tuple[str, ...]:
    """A note on each file in `folder` that holds a tokenizer's vocabulary and is not read."""
    return tuple(f"{name} was ignored: {why}" for name, why in IGNORED.items() if (folder / name).is_file())


def open_carried(files: Collection[Path], vocab_size: int) -> CarriedTokenizer | None:
    """The tokenizer in `files`, None if they hold none: `tokenizer.json`, or `vocab.json` with `merges.txt`.

    Raises:
        CheckpointError: a file is damaged, or there are ids that a model with this vocabulary does not have.
    """
    by_name = {file.name: file for file in files}
    settings = [read_json_object(by_name[name]) for name in (SETTINGS, SPECIAL) if name in by_name]
    end = next((text for values in settings if (text := _content(values.get("eos_token")))), USUAL_END)
    if WHOLE in by_name:
        main, backend = by_name[WHOLE], _read_whole(by_name[WHOLE])
    elif VOCABULARY in by_name and MERGES in by_name:
        main, backend = by_name[VOCABULARY], _read_byte_pairs(by_name, settings, end)
    else:
        return None
    if (largest := max(backend.get_vocab(with_added_tokens=True).values(), default=-1)) >= vocab_size:
        raise CheckpointError(
            f"{main} has ids up to {largest}, the model's vocabulary ends at {vocab_size - 1};"
            " put the tokenizer there that the model was trained with, or none"
        )
    return CarriedTokenizer(backend, end)


def _read_whole(path: Path) -> Backend:
    text = read_json_text(path)
    try:
        return Backend.from_str(text)
    except Exception as error:  # the library raises plain Exception
        raise CheckpointError(
            f"{path} is not a tokenizer that can be read ({some([error])}); save or download it again"
        ) from error


def _read_byte_pairs(files: Mapping[str, Path], settings: Sequence[Mapping[str, Any]], end: str) -> Backend:
    """GPT-2's byte-level BPE with the vocabulary and merges of the files."""
    try:
        backend = Backend(BPE.from_file(str(files[VOCABULARY]), str(files[MERGES])))
    except Exception as error:  # the library raises plain Exception
        raise CheckpointError(
            f"{files[VOCABULARY]} and {MERGES} do not make a tokenizer ({some([error])}); save or download them again"
        ) from error
    prefix = any(values.get("add_prefix_space") is True for values in settings)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    backend.decoder = decoders.ByteLevel()
    added = read_json_object(files[ADDED]) if ADDED in files else {}
    for text, token_id in sorted(added.items(), key=lambda item: str(item[1]).zfill(12)):
        backend.add_tokens([text])
        if backend.token_to_id(text) != token_id:
            raise CheckpointError(
                f"{files[ADDED]} gives {text!r} the id {token_id!r}, after {VOCABULARY} it is"
                f" {backend.token_to_id(text)}; save the tokenizer again as {WHOLE}"
            )
    if backend.token_to_id(end) is not None:
        backend.add_special_tokens([end])
    return backend


def _content(token: object) -> str | None:
    value = token.get("content") if isinstance(token, Mapping) else token
    return value if isinstance(value, str) else None
