"""How padding is hidden: a finite negative number on the scores of keys that `attention_mask` says are no tokens."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from gpt_export.passes.cache.axes import BATCH, Axes, columns_of, constant_size
from gpt_export.passes.cache.dims import Writing
from gpt_export.passes.cache.refusal import refuse

HIDDEN = -3e4
"""Exp of it is 0 beside any real score, and it is finite: a row that may look nowhere gives finite numbers."""


class Padding:
    """Writes what is added to scores, once for each form that scores have."""

    def __init__(self, writing: Writing, mask: ir.Value) -> None:
        self._writing = writing
        self._mask = mask
        self._made: dict[tuple[int, ...], ir.Value] = {}

    def bias(self, node: ir.Node, axes: Axes) -> ir.Value:
        """float32, 0 where a key is a token and `HIDDEN` where it is padding, to be added to scores of `axes`.

        Raises:
            CacheRefusal: rows of scores are not those of a batch.
        """
        place = next(i for i, of in enumerate(axes) if columns_of(of))
        columns = columns_of(axes[place])
        batch = next((i for i, of in enumerate(axes) if of and of[0] == BATCH), None)
        if batch is None or columns is None or batch > place:
            raise refuse(node, "weighs positions whose rows are not those of a batch")
        folded = constant_size(axes[batch][1:])
        key = (columns.front, columns.back, folded, batch, place, len(axes))
        if key not in self._made:
            made = self._by_head(self._hidden(columns.front, columns.back), folded)
            units = [i for i in range(len(axes)) if i not in (batch, place)]
            writing = self._writing
            self._made[key] = writing.node("Unsqueeze", [made, writing.constant(units)], "cache/hidden/by_key") if units else made
        return self._made[key]

    def _hidden(self, front: int, back: int) -> ir.Value:
        """(batch, front + total + back)."""
        writing = self._writing
        if (front, back) not in self._made:
            shown = writing.node("Cast", [self._mask], "cache/shown", {"to": ir.DataType.FLOAT})
            hidden = writing.node("Sub", [writing.constant(1, np.float32), shown], "cache/padding")
            made = writing.node("Mul", [hidden, writing.constant(HIDDEN, np.float32)], "cache/hidden")
            if front or back:
                ends = [writing.constant([0, front, 0, back]), writing.constant(0, np.float32)]
                made = writing.node("Pad", [made, *ends], "cache/hidden/padded")
            self._made[front, back] = made
        return self._made[front, back]

    def _by_head(self, hidden: ir.Value, heads: int) -> ir.Value:
        """(batch * heads, columns) where heads are folded into the batch."""
        if heads == 1:
            return hidden
        writing = self._writing
        made = writing.node("Unsqueeze", [hidden, writing.constant([1])], "cache/hidden/heads")
        made = writing.node("Expand", [made, writing.constant([1, heads, 1])], "cache/hidden/by_head")
        columns = writing.node("Shape", [hidden], "cache/hidden/columns", {"start": 1, "end": 2})
        return writing.node("Reshape", [made, writing.shape([-1, columns])], "cache/hidden/folded")
