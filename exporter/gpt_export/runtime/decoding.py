"""A batch on its way through a graph, a few tokens at a time, with the past kept where the graph can use it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from gpt_export.runtime.options import running
from gpt_export.runtime.signature import INPUT_IDS, LOGITS

Ids = NDArray[np.int64]
Logits = NDArray[np.float32]

LOGITS_AXES = 3
PREFILL_TOKENS = 256
"""At most so many tokens of a long prompt are fed at once: their activations stay in cache, attention computes less of
what it then hides, and where a graph gives the logits of every position that bounds them."""
LIKE_SHARE = 0.75
"""A prompt at least so long as another one is read beside it."""


@dataclass(frozen=True, slots=True)
class Past:
    """What rows have been fed so far: the mask, int64 (rows, tokens), and keys and values (rows, heads, tokens, width).

    Rows end together; in front of a shorter one there is padding.
    """

    mask: Ids
    arrays: Sequence[NDArray[Any]]

    def take(self, rows: Sequence[int]) -> Past:
        """The past of some of the rows, without columns that are padding for all of them."""
        mask = self.mask[list(rows)]
        used = mask.any(axis=0)
        start = int(used.argmax()) if used.any() else mask.shape[1]
        return Past(mask[:, start:], [array[list(rows), :, start:] for array in self.arrays])

    def behind_padding(self, slots: int) -> Past:
        """The past with so many columns of padding in front of it."""
        length = self.mask.shape[1] + slots
        return Past(_padded(self.mask, length, 1), [_padded(array, length, 2) for array in self.arrays])

    def beside(self, other: Past) -> Past:
        """The rows of this and of another, in this order."""
        length = max(self.mask.shape[1], other.mask.shape[1])
        both = (self, other)
        return Past(
            np.concatenate([_padded(past.mask, length, 1) for past in both]),
            [
                np.concatenate([_padded(array, length, 2) for array in pair])
                for pair in zip(self.arrays, other.arrays, strict=True)
            ],
        )


def _padded(array: NDArray[Any], length: int, axis: int) -> NDArray[Any]:
    shape = list(array.shape)
    shape[axis] = length - shape[axis]
    return np.concatenate([np.zeros(shape, array.dtype), array], axis=axis)


class Rejoinable(Protocol):
    """A decoding whose rows can go on in another batch, since a mask hides what stands in front of them."""

    def past(self) -> Past:
        """What was fed so far; valid until more is fed."""
        ...

    def resume(self, past: Past) -> None:
        """Takes the place of a decoding with that past; this one must be new, and of as many rows."""
        ...


class Decoding(Protocol):
    """Feeds tokens and returns their logits; what was fed before is remembered."""

    def feed(self, ids: Ids, mask: Ids) -> Logits:
        """Logits, float32 (batch, new, vocabulary), of new ids (batch, new); the mask is 0 on padding."""
        ...

    def feed_for_last(self, ids: Ids, mask: Ids) -> Logits:
        """Logits of the last of the new ids alone, float32 (batch, vocabulary)."""
        ...


def even_chunks(length: int) -> list[tuple[int, int]]:
    """Start and stop of pieces of about equal length, none above `PREFILL_TOKENS`."""
    count = -(-length // PREFILL_TOKENS)
    cuts = [length * i // count for i in range(count + 1)]
    return list(itertools.pairwise(cuts))


def alike(mask: Ids) -> list[list[int]]:
    """The rows of a left-padded prompt in groups of about one length, so that little padding is computed.

    One group of all rows where they are few tokens.
    """
    lengths = mask.sum(axis=1).tolist()
    if mask.size <= PREFILL_TOKENS:
        return [list(range(len(lengths)))]
    groups: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if not groups or lengths[row] < LIKE_SHARE * lengths[groups[-1][0]]:
            groups.append([])
        groups[-1].append(row)
    return groups


class RecomputedDecoding:
    """Decoding on a graph without a cache: every step runs all tokens again. Rows must not be padded.

    Of a graph that scores the last position alone, or the row as a whole, it returns those scores.
    """

    def __init__(self, session: ort.InferenceSession, batch: int, output: str = LOGITS) -> None:
        self._session = session
        self._output = output
        self._ids: Ids = np.zeros((batch, 0), dtype=np.int64)

    def feed(self, ids: Ids, mask: Ids) -> Logits:  # noqa: ARG002 - rows have no padding here
        """See `Decoding.feed`."""
        self._ids = np.concatenate([self._ids, ids], axis=1)
        with running():
            scores = self._session.run([self._output], {INPUT_IDS: self._ids})[0]
        return cast(Logits, scores[:, -ids.shape[1] :] if scores.ndim == LOGITS_AXES else scores)

    def feed_for_last(self, ids: Ids, mask: Ids) -> Logits:
        """See `Decoding.feed_for_last`."""
        return self.feed(ids, mask)[:, -1]

    def keep(self, rows: Sequence[int]) -> None:
        """Goes on with some of the rows."""
        self._ids = self._ids[list(rows)]
