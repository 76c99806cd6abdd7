"""Decoding on a graph whose present is the past with the new tokens behind it, a longer tensor each time."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import onnxruntime as ort

from gpt_export.runtime.decoding import Ids, Logits, Past, alike, even_chunks
from gpt_export.runtime.options import running
from gpt_export.runtime.signature import ATTENTION_MASK, INPUT_IDS, LOGITS, POSITION_IDS, CacheShape


class GrownDecoding:
    """Past and present stay onnxruntime's own values and are bound, never copied into Python."""

    def __init__(self, session: ort.InferenceSession, cache: CacheShape, batch: int, dtype: np.dtype[Any]) -> None:
        self._session = session
        self._cache, self._dtype = cache, dtype
        self._past_names, self._present_names = cache.past_names(), cache.present_names()
        self._past = [
            ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, dtype)) for shape in cache.empty_shapes(batch).values()
        ]
        self._mask: Ids = np.zeros((batch, 0), dtype=np.int64)

    def feed(self, ids: Ids, mask: Ids) -> Logits:
        """See `Decoding.feed`. A row's positions count its tokens, not its padding."""
        before = self._mask.sum(axis=1, keepdims=True)
        self._mask = np.concatenate([self._mask, mask], axis=1)
        positions = np.maximum(before + np.cumsum(mask, axis=1) - 1, 0)
        with running():
            binding = self._session.io_binding()
            for name, array in ((INPUT_IDS, ids), (ATTENTION_MASK, self._mask), (POSITION_IDS, positions)):
                binding.bind_cpu_input(name, np.ascontiguousarray(array))
            for name, value in zip(self._past_names, self._past, strict=True):
                binding.bind_ortvalue_input(name, value)
            for name in (LOGITS, *self._present_names):
                binding.bind_output(name, "cpu")
            self._session.run_with_iobinding(binding)
        logits, *self._past = binding.get_outputs()
        return cast(Logits, logits.numpy())

    def feed_for_last(self, ids: Ids, mask: Ids) -> Logits:
        """See `Decoding.feed_for_last`. Long prompts of unequal length are read group by group."""
        groups = alike(mask) if self._mask.shape[1] == 0 else []
        if len(groups) > 1:
            return self._feed_groups(groups, ids, mask)
        for start, stop in even_chunks(ids.shape[1]):
            logits = self.feed(ids[:, start:stop], mask[:, start:stop])
        return logits[:, -1]

    def _feed_groups(self, groups: list[list[int]], ids: Ids, mask: Ids) -> Logits:
        """The last logits of rows that are read apart, and then stand side by side here."""
        past: Past | None = None
        parts = []
        for rows in groups:
            padding = int(mask[rows].argmax(axis=1).min())
            group = GrownDecoding(self._session, self._cache, len(rows), self._dtype)
            parts.append(group.feed_for_last(ids[rows, padding:], mask[rows, padding:]))
            past = group.past() if past is None else past.beside(group.past())
        assert past is not None
        places = np.argsort([row for rows in groups for row in rows])
        self.resume(past.take(places.tolist()))
        return np.concatenate(parts)[places]

    def past(self) -> Past:
        """See `Rejoinable.past`."""
        return Past(self._mask, [value.numpy() for value in self._past])

    def resume(self, past: Past) -> None:
        """See `Rejoinable.resume`."""
        self._mask = past.mask
        self._past = [ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array)) for array in past.arrays]
