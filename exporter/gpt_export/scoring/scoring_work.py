"""What a worker does with windows: runs them, and says what each of their tokens cost. No text and no file here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from gpt_export_models.tokenizer import pad
from numpy.typing import NDArray

from gpt_export.errors import InputError
from gpt_export.runtime.decoding import PREFILL_TOKENS
from gpt_export.runtime.session import Session
from gpt_export.scoring.divergence import Comparison, compare
from gpt_export.scoring.loss import LossGraph
from gpt_export.scoring.reference import Run, eager_reference, session_reference
from gpt_export.scoring.windows import Window

WORST = 10
"""Positions that a window tells of with both sides' likeliest tokens."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A window and where it belongs."""

    document: int
    window: Window

    @property
    def key(self) -> tuple[int, int]:
        """What tells it from every other row of the run."""
        return self.document, self.window.start


@dataclass(frozen=True, slots=True)
class WorstPosition:
    """A position at which the two sides are far apart."""

    at: int
    """In the window; the token there is the last that was read."""
    kl: float
    top: int
    reference_top: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowLoss:
    """Of each token of a window that counts: its loss in nats, and whether it was thought the likeliest."""

    loss: Floats
    top_probability: Floats
    hit: NDArray[np.bool_]
    reference_loss: Floats | None = None
    kl: Floats | None = None
    same: NDArray[np.bool_] | None = None
    worst: tuple[WorstPosition, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringSetup:
    """What a worker needs to score: which files, how to run them, and what to compare with."""

    artifact: Path
    variant: str
    against: str | None = None
    against_variant: str | None = None
    source_options: dict[str, Any] = field(default_factory=dict)
    threads: int = 1
    prepack: bool = True

    def open(self) -> Callable[[Sequence[Row]], list[WindowLoss]]:
        """The function from rows to their losses.

        Raises:
            GptExportError: the artifact cannot be opened or scores no tokens, or there is no such reference.
        """
        session = self._session(self.variant)
        if session.head.of != "tokens" or session.head.positions != "all":
            raise InputError(
                f"{session.manifest.name} does not give the logits of every position, so a text has no loss; "
                "export the model with the scores of all positions"
            )
        if self.against_variant is not None:
            return ComparingWork(session, session_reference(self._session(self.against_variant)))
        if self.against is not None:
            run = eager_reference(self.against, session.vocab_size, self.threads, **self.source_options)
            return ComparingWork(session, run)
        return LossWork(session, self.threads)

    def _session(self, variant: str) -> Session:
        return Session.open(self.artifact, variant=variant, verify=False, threads=self.threads, prepack=self.prepack)


class LossWork:
    """Losses alone. Rows of a graph with a cache are fed in chunks, which bounds the logits that are held at once."""

    def __init__(self, session: Session, threads: int) -> None:
        self._session = session
        self._loss = LossGraph(session.head.width, threads)

    def __call__(self, rows: Sequence[Row]) -> list[WindowLoss]:
        """The losses of each row."""
        ids, mask = _batch(rows)
        decoding = self._session.decoding(len(rows))
        targets = np.concatenate([ids[:, 1:], ids[:, :1]], axis=1)  # what follows the last token, nobody asks
        found, tops = [], []
        for start, stop in chunks(len(rows), ids.shape[1], cached=self._session.cache is not None):
            logits = np.ascontiguousarray(decoding.feed(ids[:, start:stop], mask[:, start:stop]))
            each, top = self._loss(logits.reshape(-1, logits.shape[-1]), targets[:, start:stop].reshape(-1))
            found.append(each.reshape(logits.shape[:2]))
            tops.append(top.reshape(logits.shape[:2]))
        log_probability, top = np.concatenate(found, axis=1), np.concatenate(tops, axis=1)
        return [_loss(-log_probability[i, at], top[i, at]) for i, at in enumerate(map(_scored, rows))]


class ComparingWork:
    """Losses of two sides and how far they are apart."""

    def __init__(self, session: Session, reference: Run) -> None:
        self._run, self._reference = session_reference(session), reference

    def __call__(self, rows: Sequence[Row]) -> list[WindowLoss]:
        """The losses of each row."""
        ids, mask = _batch(rows)
        logits, expected = self._run(ids, mask), self._reference(ids, mask)
        return [
            _compared(row, compare(logits[i, at], expected[i, at], ids[i, 1 : len(row.window.ids)][_from(row)]))
            for i, row in enumerate(rows)
            for at in (_scored(row),)
        ]


def chunks(rows: int, length: int, *, cached: bool) -> Iterator[tuple[int, int]]:
    """Start and stop of what is fed at once: all, or of a long row alone pieces that the cache joins."""
    step = PREFILL_TOKENS if cached and rows == 1 else length
    return ((start, min(start + step, length)) for start in range(0, length, step))


def _batch(rows: Sequence[Row]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return pad(cast(Any, [row.window.ids for row in rows]), side="right", pad_id=0)


def _scored(row: Row) -> slice:
    """Positions whose logits say something of a token that counts."""
    return slice(row.window.first - 1, len(row.window.ids) - 1)


def _from(row: Row) -> slice:
    return slice(row.window.first - 1, None)


def _loss(loss: Floats, top: Floats) -> WindowLoss:
    if not np.isfinite(loss).all():
        raise InputError("the logits hold NaN or Inf; gpt-export validate says whether the artifact is its model")
    return WindowLoss(loss=loss, top_probability=np.exp(top), hit=-loss >= top)


def _compared(row: Row, found: Comparison) -> WindowLoss:
    if not (np.isfinite(found.loss).all() and np.isfinite(found.reference_loss).all()):
        raise InputError("the logits hold NaN or Inf; gpt-export validate says whether the artifact is its model")
    worst = np.argsort(-found.kl, kind="stable")[:WORST]
    return WindowLoss(
        loss=found.loss,
        top_probability=np.exp(found.top_log_probability),
        hit=-found.loss >= found.top_log_probability,
        reference_loss=found.reference_loss,
        kl=found.kl,
        same=found.top == found.reference_top,
        worst=tuple(
            WorstPosition(
                int(i) + row.window.first - 1, float(found.kl[i]), int(found.top[i]), int(found.reference_top[i])
            )
            for i in worst
        ),
    )
