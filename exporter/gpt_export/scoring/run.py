"""A job to the records of its parts, in order, on whatever workers there are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Generic, Protocol, TypeVar

from gpt_export.errors import InputError, OutputError
from gpt_export.scoring.dispatch import Crew, dispatch
from gpt_export.scoring.folder import RunFolder
from gpt_export.scoring.piece import Outcome, Piece
from gpt_export.scoring.progress import OnProgress, Progress

logger = logging.getLogger(__name__)


class AnyPart(Protocol):
    """What is written together."""

    number: int

    def digest(self) -> str:
        """A hash of everything that is worked on here, to know it again."""

    def names(self) -> list[str]:
        """What its documents are called."""


P = TypeVar("P", bound=AnyPart)


class Job(Protocol[P]):
    """What is to be done, in parts that depend on nothing but the input and the settings."""

    def parts(self) -> Iterator[P]:
        """The parts in order, each made when it is asked for."""

    def pieces(self, part: P) -> Iterator[Piece]:
        """The work of a part. Each row of a piece has a `key` of its own."""

    def size(self, part: P) -> tuple[int, int]:
        """Tokens of a part, and bytes of the input up to its end, for the progress."""

    def done_tokens(self, row: Any, result: Any) -> int:
        """Tokens of a row that is done."""

    def record(self, part: P, found: Mapping[Any, Any]) -> dict[str, Any]:
        """What is kept of a part whose rows are all done: by the row's key its result, or a text that says why not.

        It has `documents`, a list of mappings with `name`, `fault` and `ends`.
        """


@dataclass(slots=True)
class _Open(Generic[P]):
    """A part that is being worked on."""

    part: P
    missing: int
    found: dict[Any, Any] = field(default_factory=dict)


class PartRun(Generic[P]):
    """One run: parts that are in the folder are taken from there, the others are worked on and put there."""

    def __init__(
        self, job: Job[P], folder: RunFolder, *, strict: bool, total_bytes: int | None, on_progress: OnProgress
    ) -> None:
        self._job, self._folder, self._strict = job, folder, strict
        self._on_progress, self._progress = on_progress, Progress(total_bytes=total_bytes)
        self._before = set(folder.done())
        self._open: dict[int, _Open[P]] = {}
        self._ready: set[int] = set()
        self._told = 0

    def records(self, open_crew: Callable[[], AbstractContextManager[Crew]]) -> Iterator[dict[str, Any]]:
        """The records of all parts in order. Workers are started if there is anything left to do.

        Raises:
            OutputError: parts that are there are of another input, or one cannot be written.
            InputError: a document failed, and the run is strict.
        """
        pieces = self._pieces()
        first = next(pieces, None)
        if first is not None:
            with open_crew() as crew:
                for outcome in dispatch(crew, chain((first,), pieces)):
                    self._take(outcome)
                    yield from self._in_order()
        yield from self._in_order()

    def _pieces(self) -> Iterator[Piece]:
        for part in self._job.parts():
            tokens, read_bytes = self._job.size(part)
            self._progress.planned(tokens, read_bytes)
            if part.number in self._before:
                self._check_same(part)
                self._ready.add(part.number)
                self._progress.skipped(tokens)
                continue
            pieces = list(self._job.pieces(part))
            self._open[part.number] = _Open(part, sum(len(piece.rows) for piece in pieces))
            if not pieces:
                self._finish(part.number)
            yield from pieces

    def _take(self, outcome: Outcome) -> None:
        opened = self._open[outcome.piece.part]
        results = outcome.results or [outcome.fault or "it was not done"] * len(outcome.piece.rows)
        for row, result in zip(outcome.piece.rows, results, strict=True):
            opened.found[row.key] = result
            self._progress.done(self._job.done_tokens(row, result))
        opened.missing -= len(outcome.piece.rows)
        if not opened.missing:
            self._finish(outcome.piece.part)
        self._on_progress(self._progress)

    def _finish(self, number: int) -> None:
        opened = self._open.pop(number)
        self._folder.write(number, self._job.record(opened.part, opened.found))
        self._ready.add(number)

    def _in_order(self) -> Iterator[dict[str, Any]]:
        while self._told in self._ready:
            self._ready.discard(self._told)
            record = self._folder.read(self._told)
            self._told += 1
            self._note(record["documents"])
            yield record

    def _note(self, documents: Iterable[Mapping[str, Any]]) -> None:
        for document in documents:
            if document["fault"]:
                logger.warning("%s failed: %s", document["name"], document["fault"])
                self._progress.failed += 1
                if self._strict:
                    raise InputError(
                        f"{document['name']} failed: {document['fault']}; mend it, or leave --strict out to go on"
                    )
            self._progress.documents += document["ends"]

    def _check_same(self, part: P) -> None:
        if self._folder.read(part.number).get("digest") != part.digest():
            names = part.names()
            raise OutputError(
                f"{self._folder.folder} was begun with another input: {names[0]}"
                + (f" to {names[-1]}" if len(names) > 1 else "")
                + " changed, or come in another order; choose another --output, or restore them"
            )
