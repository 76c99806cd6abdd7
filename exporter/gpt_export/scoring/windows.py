"""A document's ids to windows: which tokens a model sees at once, and which of them count.

A window begins every `stride` tokens and is `length` tokens long, the last one shorter. A window scores the tokens that
no window before it has, apart from its own first, which has nothing before it. So with a stride below the length every
token of a document but the first is scored once, with at least `length - stride` tokens before it; with a stride of the
length the first token of each window is not scored, which is how perplexities are usually told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens that are seen at once."""

    start: int
    """Of its first token in the document."""
    ids: Ids
    first: int
    """The first of its tokens that counts, at least 1."""

    @property
    def scored(self) -> int:
        """How many of its tokens count."""
        return len(self.ids) - self.first


def windows(pieces: Iterable[Ids], length: int, stride: int, *, whole_only: bool = False) -> Iterator[Window]:
    """The windows of a document whose ids come in pieces; holds no more than a window and a piece.

    Args:
        whole_only: leave out what does not fill a window at the end of a document of several windows, or of one.
    """
    held = np.zeros(0, np.int32)
    start, scored_to = 0, 0
    for piece in pieces:
        held = np.concatenate([held, piece])
        at = 0
        while len(held) - at > length:  # one token more than a window: so the last window is not told too early
            yield _window(start, held[at : at + length], scored_to)
            scored_to = start + length
            start, at = start + stride, at + stride
        held = held[at:]
    end = start + len(held)
    if end > scored_to and (len(held) == length or not whole_only):
        last = _window(start, held, scored_to)
        if last.scored > 0:
            yield last


def _window(start: int, ids: Ids, scored_to: int) -> Window:
    return Window(start, ids.copy(), max(1, scored_to - start))
