"""Pieces to workers and outcomes back, whatever the workers are: plain processes, or Ray's actors.

A worker that dies is replaced and its piece done again, the same piece, so that the figures are the same. After a
second death the documents of the piece are done one by one; the one over which a third worker dies has failed.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from gpt_export.scoring.piece import Outcome, Piece

MAX_DEATHS = 3
BEFORE_APART = 2

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """What is known of a worker: it has finished, could not, or is dead."""

    worker: Hashable
    results: Sequence[Any] | None = None
    fault: str | None = None
    dead: bool = False


class Crew(Protocol):
    """Workers of one kind. It replaces the dead by itself."""

    def idle(self) -> Sequence[Hashable]:
        """Workers that have nothing to do."""

    def give(self, worker: Hashable, rows: Sequence[Any]) -> None:
        """Rows to work on, for an idle worker."""

    def wait(self) -> Sequence[Event]:
        """What has happened; waits until something has.

        Raises:
            GptExportError: a worker cannot be made ready.
        """

    def close(self) -> None:
        """Ends the workers."""


def dispatch(crew: Crew, pieces: Iterable[Piece]) -> Iterator[Outcome]:
    """The outcomes, in the order in which they come; a piece is asked for when a worker has nothing to do."""
    coming, again, at_work = iter(pieces), deque[Piece](), dict[Hashable, Piece]()
    exhausted = False
    while True:
        for worker in crew.idle():
            piece = again.popleft() if again else None
            if piece is None and not exhausted:
                piece = next(coming, None)
                exhausted = piece is None
            if piece is None:
                break
            at_work[worker] = piece
            crew.give(worker, piece.rows)
        if not at_work and not again and exhausted:
            return
        for event in crew.wait():
            done = at_work.pop(event.worker, None)
            if done is None:
                continue
            outcome, more = _after(done, event)
            again.extendleft(reversed(more))
            if outcome:
                yield outcome


def _after(piece: Piece, event: Event) -> tuple[Outcome | None, list[Piece]]:
    """The outcome of a piece, or what is to be done again."""
    if event.results is not None:
        return Outcome(piece, event.results), []
    several = len(set(piece.documents)) > 1
    if not event.dead:
        return (None, piece.apart()) if several else (Outcome(piece, fault=event.fault), [])
    piece = replace(piece, deaths=piece.deaths + 1)
    logger.info("a worker died (%s); what it had is done again", event.fault)
    if several:
        return None, piece.apart() if piece.deaths >= BEFORE_APART else [piece]
    if piece.deaths >= MAX_DEATHS:
        return Outcome(piece, fault=f"{piece.deaths} workers died over it, the last one: {event.fault}"), []
    return None, [piece]
