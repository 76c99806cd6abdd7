"""One thing to run through both models."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gpt_export.gate.parity import Shown

FIRST_PREFIXES = 17
"""Prefixes up to this length are all run; of longer ones those whose length is a power of two, and the whole."""
Need = Literal["ids", "mask", "cache"]
"""What a candidate must take to run a case: ids alone, an attention mask, or a past as well."""


@dataclass(frozen=True, slots=True)
class Case:
    """Ids to run and the mask of those that are no padding, both (batch, sequence), under a name."""

    name: str
    ids: NDArray[np.int64]
    mask: NDArray[np.int64]
    reason: str
    """Why the case is there."""
    note: str = ""
    """What it does not show of what it stands for."""
    chunks: tuple[int, ...] = ()
    """Lengths of the pieces that a cached candidate is fed; empty for one pass."""
    needs: Need = "ids"
    behind: int = 0
    """Slots of padding that stand in a cache in front of the ids, as if they had been fed."""
    by_prefix: bool = False
    """Whether each position is the end of a run of its own, for models that score the last position alone."""
    is_text: bool = False
    """Whether the ids are a tokenized text, so that perplexity means something."""

    @property
    def positions(self) -> int:
        """Positions that are run, padding included."""
        return self.ids.size

    def row(self, index: int) -> Case:
        """The case of one of its rows, padding and pieces as they are."""
        return replace(self, ids=self.ids[index : index + 1], mask=self.mask[index : index + 1])

    def rows(self) -> Iterator[NDArray[np.int64]]:
        """The ids of each row without its padding, (1, length)."""
        for ids, mask in zip(self.ids, self.mask, strict=True):
            yield ids[None, mask.astype(bool)]

    def cuts(self, *, cached: bool = True) -> list[tuple[int, int]]:
        """Start and stop of each piece that a candidate is fed; one without a cache gets all at once."""
        chunks = (self.chunks if cached else ()) or (self.ids.shape[1],)
        return list(itertools.pairwise(itertools.accumulate(chunks, initial=0)))

    @property
    def several_behind_past(self) -> bool:
        """Whether several rows are fed several tokens behind a past, which GroupQueryAttention refuses on a CPU."""
        return len(self.ids) > 1 and any(start and stop - start > 1 for start, stop in self.cuts())

    def shown(self) -> Shown:
        """What `parity.compare` needs of the case."""
        targets = None
        if self.is_text:
            targets = np.full_like(self.ids, -1)
            targets[:, :-1] = np.where(self.mask[:, 1:] > 0, self.ids[:, 1:], -1)
        return Shown(self.name, self.compared(), self.note, targets)

    def ends(self) -> list[int]:
        """Lengths of the prefixes that are run where positions are told by prefixes.

        They are the first ones and ever fewer, and the ends of the pieces that a cache is fed.
        """
        length = self.ids.shape[1]
        stops = {stop for _, stop in self.cuts()}
        return [end for end in range(1, length + 1) if end <= FIRST_PREFIXES or end & (end - 1) == 0 or end in stops]

    def compared(self) -> NDArray[np.bool_]:
        """Which positions are compared, bool (batch, sequence)."""
        compared = self.mask.astype(bool)
        if self.by_prefix:
            shown = np.zeros(self.ids.shape[1], dtype=bool)
            shown[np.array(self.ends()) - 1] = True
            compared &= shown
        return compared
