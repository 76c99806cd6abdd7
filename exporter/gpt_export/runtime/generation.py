"""Prompts continued in one batch, piece by piece, until each has its length or has met a stop. Needs no torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from gpt_export_models.tokenizer import TextStream, Tokenizer, encode, pad, shorten
from numpy.typing import NDArray

from gpt_export.errors import ContextError, InputError, TextError
from gpt_export.runtime.chat import unfolded, unmarked

USUAL_NEW_TOKENS = 50
StopReason = Literal["length", "end-of-text", "stop", "context"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationConfig:
    """How prompts are continued; see `Session.generate` for the sampling.

    Raises:
        InputError: a stop is empty.
    """

    max_new_tokens: int | None = None
    """How many ids each prompt gets; None is `USUAL_NEW_TOKENS`, or fewer where the context has no room for them."""
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int | None = None
    stops: tuple[str, ...] = ()
    """Texts that end a continuation, a special token's among them; in a generation of ids, ids in digits."""
    ignore_end_of_text: bool = False
    """Go on after the tokenizer's end-of-text token, which otherwise ends a continuation."""
    special: bool = False
    """Take what spells a special token in a prompt for that token; otherwise it is text."""
    chat: bool = False
    """Prompts are what a user says: the artifact's chat template, and its special tokens, are put around them."""

    def __post_init__(self) -> None:
        if "" in self.stops:
            raise InputError("a stop is empty; pass a text with at least one character")


@dataclass(slots=True)
class Continuation:
    """One prompt and what has come after it so far."""

    prompt: str
    prompt_ids: list[int]
    ids: list[int] = field(default_factory=list)
    """Every new id, the one that stopped it among them."""
    text: str | None = ""
    """What the new ids say before the stop; None in a generation of ids."""
    stop: StopReason | None = None
    """Why it ended; None while it goes on."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values of every field."""
        return asdict(self)


class Generating(Protocol):
    """What of a `Session` a generation needs."""

    vocab_size: int
    context_length: int

    @property
    def generate(self) -> Callable[..., Iterator[NDArray[np.int64]]]:
        """See `Session.generate`."""
        ...


class Generation:
    """A batch of prompts being continued. Iterate over it for the pieces, as (index of the prompt, text)."""

    def __init__(
        self, session: Generating, tokenizer: Tokenizer | None, prompts: Sequence[str], config: GenerationConfig
    ) -> None:
        """Checks everything that can be checked before the first token.

        Args:
            tokenizer: that of the prompts; None for prompts that are ids in digits, whose pieces are ids too.

        Raises:
            TextError: a prompt gives no token, or more than the context holds.
            InputError: a prompt or a stop is not ids, or a setting is out of range.
        """
        if tokenizer is None:
            rows = [parse_ids(prompt, session.vocab_size) for prompt in prompts]
        else:
            rows = [_encoded(prompt, session.context_length, tokenizer, config) for prompt in prompts]
        self.continuations = [
            Continuation(unmarked(prompt), row, text=None if tokenizer is None else "")
            for prompt, row in zip(prompts, rows, strict=True)
        ]
        stops = Stops.of(config, tokenizer, session.vocab_size)
        self._rows = [Row(continuation, tokenizer, stops) for continuation in self.continuations]
        ids, mask = pad(rows, side="left", pad_id=0)
        room = session.context_length - ids.shape[1] + 1  # the last new token need not be read
        usual = min(USUAL_NEW_TOKENS, room)
        self._steps = session.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=usual if config.max_new_tokens is None else config.max_new_tokens,
            temperature=config.temperature,
            top_k=config.top_k,
            top_p=config.top_p,
            min_p=config.min_p,
            repetition_penalty=config.repetition_penalty,
            seed=config.seed,
            stop_ids=stops.ids.keys(),
            has_ended=lambda row: self.continuations[row].stop is not None,
        )

    def __iter__(self) -> Iterator[tuple[int, str]]:
        """The pieces as they come; a piece is never empty.

        Raises:
            ContextError: the context is full; after the last piece, and with the continuations in its details.
        """
        try:
            for chosen in self._steps:
                yield from self._told(row.take(token) for row, token in zip(self._rows, chosen.tolist(), strict=True))
                if all(row.continuation.stop for row in self._rows):
                    return
            yield from self._told(row.end("length") for row in self._rows)
        except ContextError as error:
            yield from self._told(row.end("context") for row in self._rows)
            raise ContextError(str(error), [item.to_dict() for item in self.continuations]) from error

    @staticmethod
    def _told(pieces: Iterator[str]) -> Iterator[tuple[int, str]]:
        return ((i, piece) for i, piece in enumerate(pieces) if piece)


def _encoded(prompt: str, context_length: int, tokenizer: Tokenizer, config: GenerationConfig) -> list[int]:
    """The ids of a prompt. In a chat the template's special tokens are tokens, and what the user typed is text."""
    if not config.chat:
        return encode(prompt, context_length, tokenizer, special=config.special)
    parts = unfolded(prompt)
    rows = [encode(text, context_length, tokenizer, special=special, whole=False) for text, special in parts if text]
    ids = [token_id for row in rows for token_id in row]
    if not 0 < len(ids) <= context_length:
        raise TextError(f"the chat gives {len(ids)} tokens, the context is {context_length}; say something shorter")
    return ids


def parse_ids(text: str, vocab_size: int) -> list[int]:
    """The ids in a text like "15496 11 314" or "15496, 11, 314".

    Raises:
        InputError: it holds something else, no id, or one outside the vocabulary.
    """
    words = re.findall(r"[^\s,]+", text)
    if not words or not all(re.fullmatch(r"[0-9]+", word) for word in words):
        raise InputError(f'{shorten(text)!r} is not a list of ids; pass whole numbers, such as "1 2 3"')
    if outside := [word for word in words if len(word) > 18 or int(word) >= vocab_size]:
        raise InputError(f"id {shorten(outside[0])} is outside the vocabulary; ids run from 0 to {vocab_size - 1}")
    return [int(word) for word in words]


@dataclass(frozen=True, slots=True)
class Stops:
    """What ends a continuation: ids with the reason that they are, and texts."""

    ids: Mapping[int, StopReason]
    texts: tuple[str, ...]

    @classmethod
    def of(cls, config: GenerationConfig, tokenizer: Tokenizer | None, vocab_size: int) -> Stops:
        ids: dict[int, StopReason] = {}
        if tokenizer is None:
            return cls(dict.fromkeys((i for stop in config.stops for i in parse_ids(stop, vocab_size)), "stop"), ())
        special = {stop: tokenizer.special_id(stop) for stop in config.stops}
        ids.update((token_id, "stop") for token_id in special.values() if token_id is not None)
        if tokenizer.end_of_text_id is not None and not config.ignore_end_of_text:
            ids[tokenizer.end_of_text_id] = "end-of-text"
        return cls(ids, tuple(stop for stop, token_id in special.items() if token_id is None))


class Row:
    """Takes a row's ids and tells the text that is certain: no half character, no beginning of a stop."""

    def __init__(self, continuation: Continuation, tokenizer: Tokenizer | None, stops: Stops) -> None:
        self.continuation = continuation
        self._stream: TextStream = tokenizer.stream() if tokenizer else _IdStream()
        self._stops = stops
        self._waiting = ""

    def take(self, token_id: int) -> str:
        """The piece of text that a new id makes certain."""
        if self.continuation.stop:
            return ""
        self.continuation.ids.append(token_id)
        if token_id in self._stops.ids:
            return self.end(self._stops.ids[token_id])
        return self._tell(self._stream.feed(token_id))

    def end(self, reason: StopReason) -> str:
        """The text that was waiting."""
        if self.continuation.stop:
            return ""
        piece = self._tell(self._stream.end())
        if self.continuation.stop:  # a stop was in what the decoder held
            return piece
        self.continuation.stop = reason
        waiting, self._waiting = self._waiting, ""
        return piece + self._record(waiting)

    def _tell(self, text: str) -> str:
        text = self._waiting + text
        found = [at for stop in self._stops.texts if (at := text.find(stop)) >= 0]
        if found:
            self.continuation.stop, self._waiting = "stop", ""
            return self._record(text[: min(found)])
        held = max((_overlap(text, stop) for stop in self._stops.texts), default=0)
        self._waiting = text[len(text) - held :]
        return self._record(text[: len(text) - held])

    def _record(self, text: str) -> str:
        if self.continuation.text is not None:
            self.continuation.text += text
        return text


class _IdStream:
    """Ids told as ids."""

    def feed(self, token_id: int) -> str:
        return f" {token_id}"

    def end(self) -> str:
        return ""


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` may be the beginning of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
