"""Decoding on a graph with GroupQueryAttention: past and present are one buffer, with room for what is to come."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import cast

import numpy as np
import onnxruntime as ort

from gpt_export.runtime.decoding import Ids, Logits, Past, even_chunks
from gpt_export.runtime.options import running
from gpt_export.runtime.signature import ATTENTION_MASK, INPUT_IDS, LOGITS, NUM_LOGITS_TO_KEEP, POSITION_IDS, CacheShape

ROOM_STEP = 256
"""The buffer's length is a multiple of this until it reaches the context."""


class SharedDecoding:
    """New keys and values are written into the buffer in place, and a step binds nothing anew but its few numbers.

    The operator does not take several new tokens behind a past for more than one row (onnxruntime's
    `group_query_attention_helper.h`), so these are fed row by row, each row's part of the buffer being a cache of its
    own. A long prompt of a batch goes the same way: its padding is then not computed at all.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        cache: CacheShape,
        batch: int,
        context_length: int,
        dtype: np.dtype[np.generic],
    ) -> None:
        self._session = session
        self._batch = batch
        self._names = list(zip(cache.past_names(), cache.present_names(), strict=True))
        self._context_length = context_length
        self._dtype = dtype
        self._buffers = [np.zeros(shape, dtype) for shape in cache.empty_shapes(batch).values()]
        self._mask: Ids = np.zeros((batch, context_length), np.int64)
        self._length = 0
        self._bindings: dict[tuple[int, int], ort.IOBinding] = {}
        self._keep = [ort.OrtValue.ortvalue_from_numpy(np.array(count, np.int64)) for count in (0, 1)]

    def feed(self, ids: Ids, mask: Ids) -> Logits:
        """See `Decoding.feed`. A row's positions count its tokens, not its padding."""
        positions = self._append(ids, mask)
        parts = [
            self._run(rows, ids[rows], positions[rows], self._length, last_only=False)
            for rows in self._runnable(ids.shape[1])
        ]
        self._length += ids.shape[1]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def feed_for_last(self, ids: Ids, mask: Ids) -> Logits:
        """See `Decoding.feed_for_last`."""
        positions = self._append(ids, mask)
        by_row = self._batch > 1 and len(even_chunks(ids.size)) > 1
        parts = []
        for rows in self._single_rows() if by_row else self._runnable(ids.shape[1]):
            padding = int(mask[rows].argmax(axis=1).min()) if mask[rows].any() else 0
            for start, stop in even_chunks(ids.shape[1] - padding):
                new = slice(padding + start, padding + stop)
                past = self._length + padding + start
                logits = self._run(rows, ids[rows, new], positions[rows, new], past, last_only=True)
            parts.append(logits[:, -1])
        self._length += ids.shape[1]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def past(self) -> Past:
        """See `Rejoinable.past`."""
        return Past(self._mask[:, : self._length], [buffer[:, :, : self._length] for buffer in self._buffers])

    def resume(self, past: Past) -> None:
        """See `Rejoinable.resume`."""
        length = past.mask.shape[1]
        self._reserve(length)
        self._mask[:, :length] = past.mask
        for buffer, array in zip(self._buffers, past.arrays, strict=True):
            buffer[:, :, :length] = array
        self._length = length

    def _append(self, ids: Ids, mask: Ids) -> Ids:
        """Notes the mask of new tokens; returns their positions."""
        self._reserve(self._length + ids.shape[1])
        before = self._mask.sum(axis=1, keepdims=True)
        self._mask[:, self._length : self._length + ids.shape[1]] = mask
        positions: Ids = np.maximum(before + np.cumsum(mask, axis=1) - 1, 0)
        return positions

    def _reserve(self, length: int) -> None:
        """Makes room for `length` tokens, and for as many again, so that the past is seldom copied.

        All layers share one array: from a few megabytes on NumPy asks Linux for huge pages, and reading a long past is
        a quarter faster in these.
        """
        held = self._buffers[0].shape[2]
        if length <= held:
            return
        room = max(length, min(self._context_length, max(2 * held, -(-length // ROOM_STEP) * ROOM_STEP)))
        shapes = [(batch, heads, room, dim) for batch, heads, _, dim in (buffer.shape for buffer in self._buffers)]
        sizes = [math.prod(shape) for shape in shapes]
        whole = np.zeros(sum(sizes), self._dtype)
        parts = np.split(whole, list(itertools.accumulate(sizes))[:-1])
        grown = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        for new, old in zip(grown, self._buffers, strict=True):
            new[:, :, : self._length] = old[:, :, : self._length]
        self._buffers = grown
        self._bindings.clear()

    def _runnable(self, new: int) -> list[slice]:
        """The rows that can be run at once: all, unless several tokens come behind a past."""
        several = self._batch > 1 and new > 1 and self._length > 0
        return list(self._single_rows()) if several else [slice(0, self._batch)]

    def _single_rows(self) -> Iterator[slice]:
        return (slice(row, row + 1) for row in range(self._batch))

    def _run(self, rows: slice, ids: Ids, positions: Ids, past: int, *, last_only: bool) -> Logits:
        binding = self._binding(rows)
        mask = self._mask[rows, : past + ids.shape[1]]
        with running():
            for name, array in ((INPUT_IDS, ids), (ATTENTION_MASK, mask), (POSITION_IDS, positions)):
                binding.bind_cpu_input(name, np.ascontiguousarray(array))
            binding.bind_ortvalue_input(NUM_LOGITS_TO_KEEP, self._keep[last_only])
            binding.bind_output(LOGITS, "cpu")
            self._session.run_with_iobinding(binding)
        return cast(Logits, binding.get_outputs()[0].numpy())

    def _binding(self, rows: slice) -> ort.IOBinding:
        """The binding of these rows' part of the buffers, made once."""
        key = rows.start, rows.stop
        if key not in self._bindings:
            binding = self._session.io_binding()
            binding.bind_output(LOGITS, "cpu")  # the first one, so that it is the first of the outputs
            for (past, present), buffer in zip(self._names, self._buffers, strict=True):
                value = ort.OrtValue.ortvalue_from_numpy(buffer[rows])  # on the array's own memory
                binding.bind_ortvalue_input(past, value)
                binding.bind_ortvalue_output(present, value)
            self._bindings[key] = binding
        return self._bindings[key]
