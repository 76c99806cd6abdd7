"""A batch on its way through a graph, a few tokens at a time, with the past kept where the graph can use it."""

from __future__ import annotations

import itertools
from typing import Protocol, cast

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from gpt_export.runtime.signature import INPUT_IDS, LOGITS

Ids = NDArray[np.int64]
Logits = NDArray[np.float32]

LOGITS_AXES = 3
PREFILL_TOKENS = 256
"""At most so many tokens of a long prompt are fed at once: their activations stay in cache, attention computes less of
what it then hides, and where a graph gives the logits of every position that bounds them."""


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
        scores = self._session.run([self._output], {INPUT_IDS: self._ids})[0]
        return cast(Logits, scores[:, -ids.shape[1] :] if scores.ndim == LOGITS_AXES else scores)

    def feed_for_last(self, ids: Ids, mask: Ids) -> Logits:
        """See `Decoding.feed_for_last`."""
        return self.feed(ids, mask)[:, -1]
