"""The tokenizer of a folder, as transformers reads it where it is there; as one `tokenizer.json` that holds all of it.

What a tokenizer does is spread over its files, and classes obey settings that `tokenizer.json` does not have. Whoever
runs the artifact has neither transformers nor its classes: it gets what they made of the files.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from gpt_export_models.carried_tokenizer import USUAL_END, CarriedTokenizer, beyond_note, fitted, open_carried
from gpt_export_models.probe_texts import PROBES
from gpt_export_models.problems import some
from gpt_export_models.regular_files import check_folder
from gpt_export_models.scratch import scratch_folder
from gpt_export_models.tokenizer import GPT2_VOCAB_SIZE, Gpt2Tokenizer, Tokenizer, shorten
from gpt_export_models.tokenizer_files import (
    PAIRS,
    WHOLE,
    is_gpt2s,
    settings_in,
    stated_class,
    templates_in,
    token_of,
    tokenizer_files_in,
    vocabularies_in,
)

NANOGPT_VOCAB_SIZE = 50304
"""GPT-2's vocabulary padded to a multiple of 64, as nanoGPT trains it; the tokens are the same."""
_SILENT = 50
"""The level of logging above which there is nothing."""
_LACKING = "sentencepiece is not installed, which reads such files; pip install 'gpt-export[hf]'"
NOT_OPENED: Mapping[str, str] = {"meta.pkl": "it is a pickle, which could run code"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderTokenizer:
    """The tokenizer of a model, and what its artifact needs of it."""

    tokenizer: Tokenizer | None
    """None for a model of ids alone."""
    carried: tuple[Path, ...] = ()
    """Files that go into the artifact as they are."""
    made: Mapping[str, bytes] = field(default_factory=dict)
    """Files that the folder does not have, or not as they work there, by name."""
    notes: tuple[str, ...] = ()


def assumed_tokenizer(vocab_size: int) -> FolderTokenizer:
    """GPT-2's tokenizer for a vocabulary of its size, padded or not, and none for any other; with a note either way."""
    if vocab_size in (GPT2_VOCAB_SIZE, NANOGPT_VOCAB_SIZE):
        note = f"GPT-2's tokenizer was assumed, for the vocabulary has {vocab_size} tokens and nothing says otherwise"
        return FolderTokenizer(tokenizer=Gpt2Tokenizer(), notes=(note,))
    return FolderTokenizer(tokenizer=None, notes=(ids_alone(vocab_size),))


def ids_alone(vocab_size: int) -> str:
    """The note on a source without a tokenizer."""
    return f"there is no tokenizer for this vocabulary of {vocab_size}; the artifact is for ids alone"


def find_tokenizer(folder: Path, vocab_size: int) -> FolderTokenizer:
    """The tokenizer of the model in `folder`.

    Raises:
        CheckpointError: a file of it is damaged, or it is of a larger vocabulary than the model.
    """
    check_folder(folder)
    carried = (*tokenizer_files_in(folder), *templates_in(folder))
    seen = vocabularies_in(folder)
    named = stated_class(folder)
    if not seen and (named is None or is_gpt2s(named)):
        found = assumed_tokenizer(vocab_size)
        return FolderTokenizer(tokenizer=found.tokenizer, carried=carried, notes=found.notes)
    plain = open_carried(carried, vocab_size)  # which says what is damaged
    asked = _by_transformers(folder) if _may_ask(folder, seen) else _Asked()
    if asked.backend is not None:
        carried += tuple(folder / name for name in asked.saved if folder / name not in carried)
        return _of_backend(asked.backend, plain, carried, vocab_size, folder, seen)
    if plain is not None:
        notes = beyond_note(plain.backend, vocab_size)
        if asked.why:
            notes += (f"transformers does not read the tokenizer ({asked.why}); its files were taken as they are",)
        return FolderTokenizer(tokenizer=plain, carried=carried, made=_whole(plain, carried), notes=notes)
    ignored = tuple(f"{name} was ignored: {NOT_OPENED[name]}" for name in seen if name in NOT_OPENED)
    if len(ignored) == len(seen) and named is None:
        return FolderTokenizer(tokenizer=None, carried=carried, notes=(*ignored, ids_alone(vocab_size)))
    return FolderTokenizer(tokenizer=None, carried=carried, notes=(_not_read(seen, named, vocab_size, asked.why),))


def _of_backend(
    made: Backend,
    plain: CarriedTokenizer | None,
    carried: tuple[Path, ...],
    vocab_size: int,
    folder: Path,
    seen: tuple[str, ...],
) -> FolderTokenizer:
    settings = settings_in({file.name: file for file in carried})
    end = token_of(settings, "eos_token") or USUAL_END
    notes = beyond_note(made, vocab_size)
    tokenizer = fitted(made, end, vocab_size, folder / (seen or (WHOLE,))[0])
    if plain is not None and _same(plain, tokenizer):
        return FolderTokenizer(tokenizer=plain, carried=carried, made=_whole(plain, carried), notes=notes)
    if WHOLE in seen:
        notes += (f"{WHOLE} was completed by what transformers makes of the settings beside it",)
    else:
        notes += (f"{WHOLE} was made from {some(name for name in seen if name not in NOT_OPENED)} by transformers",)
    return FolderTokenizer(
        tokenizer=tokenizer, carried=carried, made={WHOLE: tokenizer.to_json().encode("utf-8")}, notes=notes
    )


def _whole(tokenizer: CarriedTokenizer, carried: tuple[Path, ...]) -> dict[str, bytes]:
    """A tokenizer.json, if only its parts are there."""
    return {} if any(file.name == WHOLE for file in carried) else {WHOLE: tokenizer.to_json().encode("utf-8")}


def _same(plain: CarriedTokenizer, other: CarriedTokenizer) -> bool:
    """Whether both have the same tokens and give the same ids for the probes, special tokens among them."""
    if plain.backend.get_vocab() != other.backend.get_vocab():
        return False
    ours, theirs = plain.backend.get_added_tokens_decoder(), other.backend.get_added_tokens_decoder()
    if {i: repr(token) for i, token in ours.items()} != {i: repr(token) for i, token in theirs.items()}:
        return False
    added = [token.content for token in theirs.values()]
    texts = (*PROBES, *(f"a {text} b{text}c" for text in added[:100]))
    return all(
        plain.backend.encode(text, add_special_tokens=whole).ids
        == other.backend.encode(text, add_special_tokens=whole).ids
        for text in texts
        for whole in (True, False)
    )


def _not_read(seen: tuple[str, ...], named: str | None, vocab_size: int, why: str) -> str:
    """The note on a tokenizer that is there and not read."""
    files = some(seen)
    what = f"{files or 'tokenizer_config.json'}" + (f" of a {named}" if named else "")
    reason = f": {why}" if why else ""
    return (
        f"the tokenizer of this vocabulary of {vocab_size} is in {what}, from which no {WHOLE} could be "
        f"made{reason}; the "
        "artifact is for ids alone"
    )


def _may_ask(folder: Path, seen: tuple[str, ...]) -> bool:
    """Whether transformers is there, and has something to read that it knows the class of."""
    if importlib.util.find_spec("transformers") is None:
        return False
    whole = any(set(pair) <= {file.name for file in folder.iterdir()} for pair in PAIRS) or WHOLE in seen
    return whole or (stated_class(folder) is not None and bool(set(seen) - NOT_OPENED.keys()))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What transformers said of a folder."""

    backend: Backend | None = None
    why: str = ""
    """Why there is none."""
    saved: tuple[str, ...] = ()
    """Files of the folder that it would write if it saved the tokenizer, whatever they are called by then."""


def _by_transformers(folder: Path) -> _Asked:
    """What transformers makes of the folder, or why it makes nothing."""
    from transformers import AutoTokenizer
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity(_SILENT)
    try:
        with _as_hugging_face_calls_it(folder) as named:
            found: Any = AutoTokenizer.from_pretrained(named, local_files_only=True, trust_remote_code=False)
        made = getattr(found, "backend_tokenizer", None)
        if made is None:
            return _Asked(why=f"transformers reads it by a {type(found).__name__}, which has none")
        backend = Backend.from_str(made.to_str())
        saved = _saved_files(found, folder)
    except Exception as error:  # transformers raises what it likes
        if any(folder.glob("*.model")) and importlib.util.find_spec("sentencepiece") is None:
            return _Asked(why=_LACKING)
        return _Asked(why=some([str(error).strip().partition("\n")[0] or type(error).__name__]))
    finally:
        logging.set_verbosity(level)
    if len(backend.get_vocab(with_added_tokens=False)) <= len(backend.get_added_tokens_decoder()):
        return _Asked(why=f"a {type(found).__name__} finds no tokens in it")
    models = [] if (folder / WHOLE).exists() else sorted(folder.glob("*.model"))
    if models and (why := _unlike_sentencepiece(backend, models[0])):
        return _Asked(why=why)
    return _Asked(backend=backend, saved=saved)


def _saved_files(tokenizer: Any, folder: Path) -> tuple[str, ...]:
    with scratch_folder() as scratch:
        tokenizer.save_pretrained(scratch)
        names = sorted(file.name for file in scratch.iterdir())
    return tuple(name for name in names if (folder / name).is_file())


def _unlike_sentencepiece(backend: Backend, model: Path) -> str:
    """Where the tokenizer splits a text of the SentencePiece model's own pieces otherwise than it does; else empty.

    Of white space alone and of characters that the model does not know, transformers makes something else by intent.
    """
    try:
        import sentencepiece
    except ModuleNotFoundError:
        return _LACKING
    try:
        original = sentencepiece.SentencePieceProcessor(model_file=str(model))
    except (OSError, RuntimeError) as error:
        return f"sentencepiece does not read it ({some([error])})"
    spelled = [token.content for token in backend.get_added_tokens_decoder().values()]
    known = [original.id_to_piece(i) for i in range(original.get_piece_size()) if not _is_control(original, i)]
    words = [piece for piece in known if piece.strip("\u2581")][:4000]
    for start in range(0, len(words), 16):
        text = " ".join("".join(words[start : start + 16]).replace("\u2581", " ").split())
        if any(token in text for token in spelled):
            continue
        wanted = [original.id_to_piece(i) for i in original.encode(text)]
        found = [backend.id_to_token(i) for i in backend.encode(text, add_special_tokens=False).ids]
        if found != wanted:
            return f"what transformers makes of it splits {shorten(text)!r} otherwise than sentencepiece"
    return ""


def _is_control(original: Any, i: int) -> bool:
    return bool(original.is_control(i) or original.is_unknown(i) or original.is_unused(i) or original.is_byte(i))


@contextlib.contextmanager
def _as_hugging_face_calls_it(folder: Path) -> Iterator[Path]:
    """The folder, or a view of it in which OpenAI's names of vocabulary and merges are Hugging Face's."""
    (vocabulary, merges), (theirs, bpe) = PAIRS
    if (
        (folder / vocabulary).exists()
        or (folder / WHOLE).exists()
        or not ((folder / theirs).exists() and (folder / bpe).exists())
    ):
        yield folder
        return
    with scratch_folder() as scratch:
        view = scratch
        for file in (*tokenizer_files_in(folder), folder / "config.json"):
            name = {theirs: vocabulary, bpe: merges}.get(file.name, file.name)
            if file.is_file():
                (view / name).symlink_to(file.resolve())
        if not (view / "config.json").exists():
            (view / "config.json").write_text(json.dumps({"model_type": "gpt2"}), encoding="utf-8")
        yield view
