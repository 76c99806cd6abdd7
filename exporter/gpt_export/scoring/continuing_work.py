"""What a worker does with prompts: continues them side by side, and gives a row that has ended to the next prompt.

Which rows are side by side depends on the prompts of the piece alone, and each row draws from a generator of its own:
so it does not matter who works on a piece, or how often it was begun.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal, cast

import numpy as np
from gpt_export_models.tokenizer import Tokenizer, pad
from numpy.typing import NDArray

from gpt_export.errors import InputError
from gpt_export.runtime.decoding import Decoding, Rejoinable
from gpt_export.runtime.generation import USUAL_NEW_TOKENS, Continuation, GenerationConfig, Stops
from gpt_export.runtime.generation import Row as GrowingRow
from gpt_export.runtime.sampling import Sampling
from gpt_export.runtime.seats import worth_leaving
from gpt_export.runtime.session import Session
from gpt_export.runtime.tokenizing import open_tokenizer

Logits = NDArray[np.float32]
FREE_SHARE = 4
"""Rows are given to new prompts when one in so many has ended: to set a batch up anew costs a step or two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt's ids and its number in the input, which decides its draws."""

    number: int
    ids: tuple[int, ...]

    @property
    def key(self) -> tuple[int, int]:
        """What tells it from every other row of the run."""
        return self.number, 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Continued:
    """What came after a prompt."""

    ids: tuple[int, ...]
    text: str | None
    finish_reason: str
    log_probabilities: tuple[float, ...] | None = None
    """Of each new id, in nats, by the model as it is: without temperature and cuts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinuingSetup:
    """What a worker needs to continue prompts."""

    artifact: Path
    variant: str
    config: GenerationConfig
    seed: int
    batch: int
    log_probabilities: bool = False
    as_ids: bool = False
    threads: int = 1
    prepack: bool = True

    def open(self) -> Callable[[Sequence[Prompt]], list[Continued]]:
        """The function from prompts to what comes after them.

        Raises:
            GptExportError: the artifact cannot be opened, or a setting is out of range.
        """
        session = Session.open(
            self.artifact, variant=self.variant, verify=False, threads=self.threads, prepack=self.prepack
        )
        if session.head.of == "classes":
            raise InputError(f"{session.manifest.name} scores classes and no next token, so it cannot continue a text")
        tokenizer = None if self.as_ids else open_tokenizer(self.artifact, session.manifest)
        return ContinuingWork(session, tokenizer, self)


def sampling_of(config: GenerationConfig) -> Sampling:
    """How tokens are chosen.

    Raises:
        InputError: a value is out of range.
    """
    return Sampling(
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        min_p=config.min_p,
        repetition_penalty=config.repetition_penalty,
    )


class _Row:
    """A prompt on its way."""

    def __init__(self, prompt: Prompt, work: ContinuingWork) -> None:
        self.prompt = prompt
        tokenizer, setup = work.tokenizer, work.setup
        self.continuation = Continuation("", list(prompt.ids), text=None if tokenizer is None else "")
        self._growing = GrowingRow(self.continuation, tokenizer, work.stops)
        room = work.session.context_length - len(prompt.ids) + 1  # the last new token need not be read
        asked = setup.config.max_new_tokens
        self._most = min(USUAL_NEW_TOKENS if asked is None else asked, room)
        self._full = asked is not None and asked > room
        self.rng = np.random.default_rng(np.random.SeedSequence(setup.seed, spawn_key=(prompt.number,)))
        self.seen = work.seen(prompt.ids)
        self.log_probabilities: list[float] = []
        self._end_if_long()

    @property
    def ended(self) -> bool:
        """Whether nothing comes any more."""
        return self.continuation.stop is not None

    def take(self, token: int) -> None:
        """Notes the next id."""
        self._growing.take(token)
        if self.seen is not None:
            self.seen[token] = True
        self._end_if_long()

    def result(self, *, log_probabilities: bool) -> Continued:
        """What came."""
        return Continued(
            ids=tuple(self.continuation.ids),
            text=self.continuation.text,
            finish_reason=str(self.continuation.stop),
            log_probabilities=tuple(self.log_probabilities) if log_probabilities else None,
        )

    def _end_if_long(self) -> None:
        if not self.ended and len(self.continuation.ids) >= self._most:
            reason: Literal["context", "length"] = "context" if self._full else "length"
            self._growing.end(reason)


class ContinuingWork:
    """Prompts to continuations, as many side by side as `batch` says."""

    def __init__(self, session: Session, tokenizer: Tokenizer | None, setup: ContinuingSetup) -> None:
        self.session, self.tokenizer, self.setup = session, tokenizer, setup
        self.stops = Stops.of(setup.config, tokenizer, session.vocab_size)
        self._sampling = sampling_of(setup.config)

    def seen(self, ids: Sequence[int]) -> NDArray[np.bool_] | None:
        """Which tokens a prompt has, bool (vocabulary,); None where nobody asks."""
        row = np.array([ids], dtype=np.int64)
        seen = self._sampling.seen(row, np.ones_like(row), self.session.vocab_size)
        return None if seen is None else seen[0]

    def __call__(self, prompts: Sequence[Prompt]) -> list[Continued]:
        """What comes after each prompt, in their order."""
        rows = [_Row(prompt, self) for prompt in prompts]
        for group in self._groups([row for row in rows if not row.ended]):
            self._continue(deque(group))
        return [row.result(log_probabilities=self.setup.log_probabilities) for row in rows]

    def _groups(self, rows: list[_Row]) -> Iterator[list[_Row]]:
        """Rows that may be side by side: all, or without a mask those of one length, no more than a batch."""
        if self.session.cache is not None:
            yield rows
            return
        for _, same in groupby(rows, key=lambda row: len(row.prompt.ids)):
            equal = list(same)
            yield from (equal[at : at + self.setup.batch] for at in range(0, len(equal), self.setup.batch))

    def _continue(self, waiting: deque[_Row]) -> None:
        """Continues rows until all have ended."""
        active: list[_Row] = []
        decoding: Decoding | None = None
        logits: Logits = np.zeros((0, 0), np.float32)
        while waiting or any(not row.ended for row in active):
            free = self.setup.batch - sum(not row.ended for row in active)
            if waiting and free * FREE_SHARE >= self.setup.batch:
                new = [waiting.popleft() for _ in range(min(free, len(waiting)))]
                active, decoding, logits = self._seat(active, decoding, logits, new)
            chosen = self._choose(active, logits)
            if self._is_full(active, decoding) or self._is_empty(active, waiting):
                chosen = chosen[[not row.ended for row in active]]
                active, decoding, logits = self._seat(active, decoding, logits, [])
            if active and any(not row.ended for row in active):
                logits = self._feed(active, chosen, decoding)

    def _is_full(self, active: list[_Row], decoding: Decoding | None) -> bool:
        """Whether rows that have ended hold columns that the others need."""
        if decoding is None or self.session.cache is None or not any(row.ended for row in active):
            return False
        return bool(cast(Rejoinable, decoding).past().mask.shape[1] >= self.session.context_length)

    def _is_empty(self, active: list[_Row], waiting: deque[_Row]) -> bool:
        """Whether so many rows have ended, with nobody waiting for their place, that the others do better alone."""
        if waiting or self.session.cache is None:
            return False
        return worth_leaving(sum(not row.ended for row in active), len(active))

    def _seat(
        self, active: list[_Row], decoding: Decoding | None, logits: Logits, new: list[_Row]
    ) -> tuple[list[_Row], Decoding, Logits]:
        """A batch of the rows that go on, and of new ones behind them, whose prompts are read here."""
        going = [i for i, row in enumerate(active) if not row.ended]
        seated = [active[i] for i in going] + new
        kept = cast(Rejoinable, decoding).past().take(going) if decoding is not None and going else None
        parts = [logits[going]] if going else []
        fresh: Decoding | None = None
        if new:
            ids, mask = pad([row.prompt.ids for row in new], side="left", pad_id=0)
            fresh = self.session.decoding(len(new))
            parts.append(fresh.feed_for_last(ids, mask))
        if kept is None:
            return (seated, fresh, parts[0]) if fresh is not None else ([], self.session.decoding(1), logits[:0])
        joined = self.session.decoding(len(seated))
        past = kept if fresh is None else kept.beside(cast(Rejoinable, fresh).past())
        cast(Rejoinable, joined).resume(past)
        return seated, joined, np.concatenate(parts)

    def _choose(self, active: list[_Row], logits: Logits) -> NDArray[np.int64]:
        """The next id of each row, noted there; 0 for one that has ended."""
        going = [i for i, row in enumerate(active) if not row.ended]
        chosen = np.zeros(len(active), np.int64)
        seen = [row for i in going if (row := active[i].seen) is not None]
        chosen[going] = self._sampling.choose(
            logits[going], [active[i].rng for i in going], np.stack(seen) if seen else None
        )
        for i in going:
            if self.setup.log_probabilities:
                active[i].log_probabilities.append(_log_probability(logits[i], int(chosen[i])))
            active[i].take(int(chosen[i]))
        return chosen

    def _feed(self, active: list[_Row], chosen: NDArray[np.int64], decoding: Decoding | None) -> Logits:
        """Logits behind the ids; a row that has ended is fed padding, so that it grows no longer."""
        assert decoding is not None
        mask = np.array([[int(not row.ended)] for row in active], dtype=np.int64)
        return decoding.feed_for_last(chosen[:, None], mask)


def _log_probability(logits: Logits, token: int) -> float:
    row = logits.astype(np.float64)
    row -= row.max()
    return float(row[token] - np.log(np.exp(row).sum()))
