"""The rows of a part to pieces of work: windows of about one length side by side, the longest first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from gpt_export.scoring.piece import Piece
from gpt_export.scoring.scoring_work import Row

BATCH_TOKENS = 512
"""At most so many tokens of several rows are run at once, padding counted: with 50,000 tokens to know, 100 MB of
logits. More at once is no faster on a processor."""


def pieces_of(part: int, rows: Iterable[Row], *, padded: bool, batch_tokens: int = BATCH_TOKENS) -> Iterator[Piece]:
    """The pieces of a part. What is beside what depends on the part's rows alone.

    Args:
        padded: whether rows of unlike length may stand side by side, which a graph without a mask does not take.
    """
    ordered = sorted(rows, key=lambda row: (-len(row.window.ids), row.document, row.window.start))
    groups = [ordered] if padded else [list(same) for _, same in groupby(ordered, key=lambda row: len(row.window.ids))]
    for group in groups:
        at = 0
        while at < len(group):
            count = max(1, batch_tokens // len(group[at].window.ids))
            taken = group[at : at + count]
            yield Piece(part=part, rows=taken, documents=tuple(row.document for row in taken))
            at += count
