"""A piece of work: what one worker does at a time. What is in it never depends on who does it, or on how many do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol


class Setup(Protocol):
    """What a worker is told once; it is pickled. `open` gives the function from a payload to its result."""

    def open(self) -> Callable[[Sequence[Any]], Any]:
        """Gets ready for work.

        Raises:
            GptExportError: it cannot; the run ends.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Rows that are worked on together, each with the document that it is of."""

    part: int
    """Which part of the results its rows go to."""
    rows: Sequence[Any]
    documents: tuple[int, ...]
    """Of each row, the number of its document."""
    deaths: int = 0
    """How many workers have died over it."""

    def apart(self) -> list[Piece]:
        """A piece for each of its documents."""
        return [
            replace(
                self,
                rows=[row for row, of in zip(self.rows, self.documents, strict=True) if of == document],
                documents=tuple(of for of in self.documents if of == document),
            )
            for document in dict.fromkeys(self.documents)
        ]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a piece: a result a row, or the reason that there is none."""

    piece: Piece
    results: Sequence[Any] = ()
    fault: str | None = None
