"""Scoring as a job: documents to parts of windows, and their losses to records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gpt_export.scoring.batching import pieces_of
from gpt_export.scoring.documents import Document
from gpt_export.scoring.piece import Piece
from gpt_export.scoring.plan import Part, Planner
from gpt_export.scoring.records import part_record
from gpt_export.scoring.scoring_work import Row


@dataclass(frozen=True, slots=True)
class ScoringJob:
    """See `run.Job`."""

    planner: Planner
    documents: Iterable[Document]
    padded: bool
    """Whether windows of unlike length may be side by side."""

    def parts(self) -> Iterator[Part]:
        """See `Job.parts`."""
        return self.planner.parts(self.documents)

    def pieces(self, part: Part) -> Iterator[Piece]:
        """See `Job.pieces`."""
        return pieces_of(part.number, part.rows, padded=self.padded)

    def size(self, part: Part) -> tuple[int, int]:
        """See `Job.size`."""
        return sum(row.window.scored for row in part.rows), part.fragments[-1].input_bytes

    def done_tokens(self, row: Row, result: Any) -> int:  # noqa: ARG002 - a window that failed is done too
        """See `Job.done_tokens`."""
        return row.window.scored

    def record(self, part: Part, found: Mapping[Any, Any]) -> dict[str, Any]:
        """See `Job.record`."""
        return part_record(part, found, self.planner.window, self.planner.tokenizer)
