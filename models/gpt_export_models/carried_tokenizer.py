"""The tokenizer whose files lie beside a checkpoint, as Hugging Face saves it; read with their `tokenizers`."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders, pre_tokenizers
from tokenizers import Tokenizer as Backend
from tokenizers.decoders import DecodeStream
from tokenizers.models import BPE

from gpt_export_models.errors import CheckpointError, TextError
from gpt_export_models.json_files import read_json_object, read_json_text
from gpt_export_models.problems import some
from gpt_export_models.tokenizer import TextStream, shorten
from gpt_export_models.tokenizer_files import ADDED, PAIRS, WHOLE, content_of, settings_in, token_of

USUAL_END = "<|endoftext|>"


class CarriedTokenizer:
    """A tokenizer of Hugging Face's as a `gpt_export_models.tokenizer.Tokenizer`.

    It adds the special tokens that its post-processor adds, and neither cuts nor pads, whatever its file says.
    """

    name = "carried"

    def __init__(self, backend: Backend, end_of_text: str | None, vocab_size: int | None = None) -> None:
        """The tokenizer of a model with so many ids; those beyond are refused. None is as many as there are tokens."""
        self._backend = backend
        self._vocab_size = vocab_size
        self.end_of_text = end_of_text
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True  # what spells one is ordinary text
        self.end_of_text_id = None if end_of_text is None else self._known(backend.token_to_id(end_of_text))
        self._special = {
            token.content: i
            for i, token in backend.get_added_tokens_decoder().items()
            if token.special and self._known(i) is not None
        }
        if end_of_text is not None and self.end_of_text_id is not None:
            self._special[end_of_text] = self.end_of_text_id

    @property
    def backend(self) -> Backend:
        """The library's tokenizer."""
        return self._backend

    @property
    def specials(self) -> tuple[str, ...]:
        """See `Tokenizer.specials`."""
        return tuple(self._special)

    def _known(self, token_id: int | None) -> int | None:
        """The id, if the model has it."""
        return token_id if token_id is None or self._vocab_size is None or token_id < self._vocab_size else None

    def encode(self, text: str, *, special: bool = False, whole: bool = True) -> list[int]:
        """See `Tokenizer.encode`.

        Args:
            special: take what spells a special token for that token.
            whole: add what the post-processor adds, such as a token that begins a text.
        """
        self._backend.encode_special_tokens = not special
        try:
            ids = list(self._backend.encode(text, add_special_tokens=whole).ids)
        except Exception as error:  # the library raises plain Exception
            raise TextError(
                f"the carried tokenizer has no ids for the text {shorten(text)!r} ({some([error])});"
                " keep to characters of its vocabulary"
            ) from error
        finally:
            self._backend.encode_special_tokens = True
        if beyond := [i for i in ids if self._known(i) is None]:
            raise TextError(
                f"the text {shorten(text)!r} spells {self._backend.id_to_token(beyond[0])!r}, which has the id "
                f"{beyond[0]}, and the model's vocabulary ends at {(self._vocab_size or 0) - 1}; leave it out"
            )
        return ids

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
        """The text of a `tokenizer.json` that holds this tokenizer.

        Merges are written as pairs with a space between, which every version of its readers takes, where no token has
        a space in it.
        """
        values = json.loads(self._backend.to_str())
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in values["model"].get("merges", ())]
        if pairs and all(len(pair) == 2 and not any(" " in part for part in pair) for pair in pairs):
            values["model"]["merges"] = [" ".join(pair) for pair in pairs]
        return json.dumps(values, ensure_ascii=False, separators=(",", ":")) + "\n"


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


def open_carried(files: Collection[Path], vocab_size: int) -> CarriedTokenizer | None:
    """The tokenizer in `files`, None if they hold none: `tokenizer.json`, or vocabulary and merges of byte pairs.

    Tokens that were added beyond the model's vocabulary, as a `[PAD]` is, are known and refused when they are used.

    Raises:
        CheckpointError: a file is damaged, or there are tokens in the vocabulary itself that the model does not have.
    """
    by_name = {file.name: file for file in files}
    settings = settings_in(by_name)
    end = token_of(settings, "eos_token") or USUAL_END
    pair = next((pair for pair in PAIRS if all(name in by_name for name in pair)), None)
    if WHOLE in by_name:
        main, backend = by_name[WHOLE], read_whole(by_name[WHOLE])
    elif pair:
        main = by_name[pair[0]]
        backend = read_byte_pairs(main, by_name[pair[1]], by_name.get(ADDED), settings, end)
    else:
        return None
    return fitted(backend, end, vocab_size, main)


def fitted(backend: Backend, end: str | None, vocab_size: int, main: Path) -> CarriedTokenizer:
    """The tokenizer for a model with `vocab_size` ids; `main` is the file that it came from.

    Raises:
        CheckpointError: there are tokens that the model does not have and that nobody added to it.
    """
    added = backend.get_added_tokens_decoder()
    largest = max((i for i in backend.get_vocab(with_added_tokens=True).values() if i not in added), default=-1)
    if largest >= vocab_size:
        raise CheckpointError(
            f"{main} has ids up to {largest}, the model's vocabulary ends at {vocab_size - 1};"
            " put the tokenizer there that the model was trained with, or none"
        )
    return CarriedTokenizer(backend, end, vocab_size)


def beyond_note(backend: Backend, vocab_size: int) -> tuple[str, ...]:
    """A note on tokens that were added to the tokenizer and not to the model."""
    beyond = [token.content for i, token in sorted(backend.get_added_tokens_decoder().items()) if i >= vocab_size]
    if not beyond:
        return ()
    return (f"the tokenizer has {some(beyond)} beyond the model's vocabulary of {vocab_size}; such ids are refused",)


def read_whole(path: Path) -> Backend:
    """The tokenizer in a `tokenizer.json`.

    Raises:
        CheckpointError: it cannot be read.
    """
    text = read_json_text(path)
    try:
        return Backend.from_str(text)
    except Exception as error:  # the library raises plain Exception
        raise CheckpointError(
            f"{path} is not a tokenizer that can be read ({some([error])}); save or download it again"
        ) from error


def read_byte_pairs(
    vocabulary: Path, merges: Path, added: Path | None, settings: Sequence[Mapping[str, Any]], end: str
) -> Backend:
    """GPT-2's byte-level BPE with the vocabulary and merges of the files, and the tokens that were added to them.

    Raises:
        CheckpointError: the files are damaged, or give a token another id than it can have.
    """
    try:
        backend = Backend(BPE.from_file(str(vocabulary), str(merges)))
    except Exception as error:  # the library raises plain Exception
        raise CheckpointError(
            f"{vocabulary} and {merges.name} do not make a tokenizer ({some([error])}); save or download them again"
        ) from error
    prefix = any(values.get("add_prefix_space") is True for values in settings)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    backend.decoder = decoders.ByteLevel()
    special = _special_tokens(settings)
    stated: dict[str, object] = dict(read_json_object(added)) if added else {}
    flags = _flags(settings)
    stated |= {token.content: i for i, token in flags.items()}
    by_text = {token.content: token for token in flags.values()}
    for text, token_id in sorted(stated.items(), key=lambda item: str(item[1]).zfill(12)):
        backend.add_tokens([by_text.get(text, AddedToken(text, special=text in special, normalized=False))])
        if backend.token_to_id(text) != token_id:
            raise CheckpointError(
                f"{added or vocabulary} gives {text!r} the id {token_id!r}, after {vocabulary.name} it is"
                f" {backend.token_to_id(text)}; save the tokenizer again as {WHOLE}"
            )
    backend.add_special_tokens([text for text in special if text not in by_text])
    if backend.token_to_id(end) is not None:
        backend.add_special_tokens([end])
    return backend


def _special_tokens(settings: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The texts that the settings declare special, in the order of the files."""
    found = []
    for values in settings:
        for name, value in values.items():
            several = value if name.endswith("special_tokens") and isinstance(value, list) else [value]
            if name.endswith(("_token", "special_tokens")) and not name.startswith("add_"):
                found += [text for token in several if (text := content_of(token))]
    return tuple(dict.fromkeys(found))


def _flags(settings: Sequence[Mapping[str, Any]]) -> dict[int, AddedToken]:
    """The tokens of `added_tokens_decoder`, with how they are looked for."""
    found = {}
    for values in settings:
        stated = values.get("added_tokens_decoder")
        for key, token in stated.items() if isinstance(stated, Mapping) else ():
            if (text := content_of(token)) and isinstance(token, Mapping) and str(key).isdecimal():
                known = ("single_word", "lstrip", "rstrip", "normalized", "special")
                how = {name: value for name in known if isinstance(value := token.get(name), bool)}
                found[int(key)] = AddedToken(text, **how)
    return found
