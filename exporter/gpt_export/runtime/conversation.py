"""One text that grows by turns, what was read before kept in the graph's cache. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from gpt_export_models.tokenizer import Tokenizer

from gpt_export.errors import ContextError, InputError
from gpt_export.runtime.generation import USUAL_NEW_TOKENS, Continuation, GenerationConfig, Row, Stops, parse_ids
from gpt_export.runtime.sampling import Sampling, generators
from gpt_export.runtime.session import Session


class Conversation:
    """What was said and answered so far. Each turn reads the new tokens alone, where the graph has a cache."""

    def __init__(self, session: Session, tokenizer: Tokenizer | None, config: GenerationConfig) -> None:
        """Reads nothing yet.

        Args:
            tokenizer: that of the texts; None for turns of ids in digits.

        Raises:
            InputError: a setting is out of range, or the model scores classes and continues nothing.
        """
        if session.head.of == "classes":
            raise InputError(f"{session.manifest.name} scores classes and no next token, so it cannot continue a text")
        drawn = config.temperature is None and config.seed is not None
        self._sampling = Sampling(
            temperature=1.0 if drawn else config.temperature,
            top_k=config.top_k,
            top_p=config.top_p,
            min_p=config.min_p,
            repetition_penalty=config.repetition_penalty,
        )
        self._session, self._tokenizer, self._config = session, tokenizer, config
        self._stops = Stops.of(config, tokenizer, session.vocab_size)
        self._rngs = generators(config.seed, 1)
        self.restart()

    def restart(self) -> None:
        """Forgets everything that was said."""
        self._decoding = self._session.decoding(1)
        self._read: list[int] = []
        self._waiting: list[int] = []

    @property
    def room(self) -> int:
        """How many more tokens the context holds."""
        return self._session.context_length - len(self._read) - len(self._waiting)

    def answer(self, text: str, *, stopped: Callable[[], bool] = lambda: False) -> Iterator[str]:
        """Appends `text` and yields what comes after it, in pieces.

        What was yielded belongs to the text from then on, also where the caller leaves before the end.

        Args:
            text: may be empty, to go on, once something was said.
            stopped: asked before every token; true ends the answer.

        Raises:
            InputError: there is nothing to go on from.
            ContextError: the context is full. What was said stays; `restart` begins anew.
        """
        if text:
            self._waiting += self._ids_of(text)
        if not self._waiting:
            raise InputError("there is nothing to continue yet; say at least one character")
        row = Row(Continuation(text, []), self._tokenizer, self._stops)
        most = USUAL_NEW_TOKENS if self._config.max_new_tokens is None else self._config.max_new_tokens
        for _ in range(most):
            if stopped():
                break
            piece = row.take(self._next())
            if piece:
                yield piece
            if row.continuation.stop:
                return
        if piece := row.end("length"):
            yield piece

    def _ids_of(self, text: str) -> list[int]:
        if self._tokenizer is None:
            return parse_ids(text, self._session.vocab_size)
        return self._tokenizer.encode(text, special=self._config.special, whole=not self._read)

    def _next(self) -> int:
        if self.room < 0:
            raise ContextError(f"the context of {self._session.context_length} tokens is full; begin anew")
        ids = np.array([self._waiting], dtype=np.int64)
        logits = self._decoding.feed_for_last(ids, np.ones_like(ids))
        self._read += self._waiting
        read = np.array([self._read], dtype=np.int64)
        seen = self._sampling.seen(read, np.ones_like(read), self._session.vocab_size)
        token = int(self._sampling.choose(logits, self._rngs, seen)[0])
        self._waiting = [token]
        return token
