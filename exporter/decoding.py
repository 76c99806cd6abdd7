"""A batch on its way through a graph, a few tokens at a time, with the past kept where the graph can use it."""

from __future__ import annotations

from typing import Protocol, cast

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from exporter.signature import ATTENTION_MASK, INPUT_IDS, LOGITS, POSITION_IDS, CacheShape

Ids = NDArray[np.int64]
Logits = NDArray[np.float32]

PREFILL_TOKENS = 256
"""At most so many tokens of a long prompt are fed at once, which bounds the logits of positions nobody asks for."""


class Decoding(Protocol):
    """Feeds tokens and returns their logits; what was fed before is remembered."""

    def feed(self, ids: Ids, mask: Ids) -> Logits:
        """Logits, float32 (batch, new, vocabulary), of new ids (batch, new); the mask is 0 on padding."""
        ...

    def feed_for_last(self, ids: Ids, mask: Ids) -> Logits:
        """Logits of the last of the new ids alone, float32 (batch, vocabulary)."""
        ...


class CachedDecoding:
    """Decoding with a key-value cache. Past and present stay onnxruntime's own values and are bound, never copied."""

    def __init__(self, session: ort.InferenceSession, cache: CacheShape, batch: int) -> None:
        self._session = session
        self._past_names, self._present_names = cache.past_names(), cache.present_names()
        empty = np.zeros((batch, cache.n_heads, 0, cache.head_dim), dtype=np.float32)
        self._past = [ort.OrtValue.ortvalue_from_numpy(empty) for _ in self._past_names]
        self._mask: Ids = np.zeros((batch, 0), dtype=np.int64)

    def feed(self, ids: Ids, mask: Ids) -> Logits:
        """See `Decoding.feed`. A row's positions count its tokens, not its padding."""
        before = self._mask.sum(axis=1, keepdims=True)
        self._mask = np.concatenate([self._mask, mask], axis=1)
        positions = np.maximum(before + np.cumsum(mask, axis=1) - 1, 0)
        return self.run(ids, self._mask, positions)

    def feed_for_last(self, ids: Ids, mask: Ids) -> Logits:
        """See `Decoding.feed_for_last`."""
        for start in range(0, ids.shape[1], PREFILL_TOKENS):
            stop = start + PREFILL_TOKENS
            logits = self.feed(ids[:, start:stop], mask[:, start:stop])
        return logits[:, -1]

    def run(self, ids: Ids, mask: Ids, positions: Ids) -> Logits:
        """Logits of new ids, given the mask of past and new ids and the positions of the new ones."""
        binding = self._session.io_binding()
        for name, array in ((INPUT_IDS, ids), (ATTENTION_MASK, mask), (POSITION_IDS, positions)):
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for name, value in zip(self._past_names, self._past, strict=True):
            binding.bind_ortvalue_input(name, value)
        for name in (LOGITS, *self._present_names):
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding)
        logits, *self._past = binding.get_outputs()
        return cast(Logits, logits.numpy())


class RecomputedDecoding:
    """Decoding on a graph without a cache: every step runs all tokens again. Rows must not be padded."""

    def __init__(self, session: ort.InferenceSession, batch: int) -> None:
        self._session = session
        self._ids: Ids = np.zeros((batch, 0), dtype=np.int64)

    def feed(self, ids: Ids, mask: Ids) -> Logits:  # noqa: ARG002 - rows have no padding here
        """See `Decoding.feed`."""
        self._ids = np.concatenate([self._ids, ids], axis=1)
        logits = self._session.run([LOGITS], {INPUT_IDS: self._ids})[0]
        return cast(Logits, logits[:, -ids.shape[1] :])

    def feed_for_last(self, ids: Ids, mask: Ids) -> Logits:
        """See `Decoding.feed_for_last`."""
        return self.feed(ids, mask)[:, -1]
