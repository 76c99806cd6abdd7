"""How padding is hidden: a finite negative number on the scores of keys that `attention_mask` says are no tokens."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from gpt_export.passes.cache.axes import BATCH, Axes, Columns, columns_of, constant_size
from gpt_export.passes.cache.bands import Band
from gpt_export.passes.cache.dims import Writing
from gpt_export.passes.cache.refusal import refuse

HIDDEN = -3e4
"""Exp of it is 0 beside any real score, and it is finite: a row that may look nowhere gives finite numbers."""


class Padding:
    """Writes what is added to scores, once for each form that scores have."""

    def __init__(self, writing: Writing, mask: ir.Value) -> None:
        self._writing = writing
        self._mask = mask
        self._made: dict[tuple[object, ...], ir.Value] = {}

    def bias(self, node: ir.Node, axes: Axes, band: Band | None = None) -> ir.Value:
        """float32, 0 where a key is a token and `HIDDEN` where it is padding, to be added to scores of `axes`.

        With `band`, what a row may not look at is hidden too.

        Raises:
            CacheRefusedError: rows of scores are not those of a batch.
        """
        place = next(i for i, of in enumerate(axes) if columns_of(of))
        columns = columns_of(axes[place])
        batch = next((i for i, of in enumerate(axes) if of and of[0] == BATCH), None)
        if batch is None or columns is None or batch > place:
            raise refuse(node, "weighs positions whose rows are not those of a batch")
        if band is not None:
            return self._banded(columns, band, len(axes))
        folded = constant_size(axes[batch][1:])
        key = (columns.front, columns.back, folded, batch, place, len(axes))
        if key not in self._made:
            made = self._by_head(self._hidden(columns.front, columns.back), folded)
            units = [i for i in range(len(axes)) if i not in (batch, place)]
            writing = self._writing
            self._made[key] = (
                writing.node("Unsqueeze", [made, writing.constant(units)], "cache/hidden/by_key") if units else made
            )
        return self._made[key]

    def _banded(self, columns: Columns, band: Band, rank: int) -> ir.Value:
        """(batch, 1, new, front + total + back), for scores of (batch, heads, rows, columns), or without heads."""
        writing = self._writing
        key = ("band", band, columns.front, columns.back, rank)
        if key not in self._made:
            zero = writing.constant(0, np.float32)
            shown = writing.node("And", [self._seen(band), self._shown(rank)], "cache/mask/seen")
            made = writing.node("Where", [shown, zero, writing.constant(HIDDEN, np.float32)], "cache/mask/bias")
            if columns.front or columns.back:
                ends = [*[0] * (rank - 1), columns.front, *[0] * (rank - 1), columns.back]
                made = writing.node("Pad", [made, writing.constant(ends), zero], "cache/mask/padded")
            self._made[key] = made
        return self._made[key]

    def _shown(self, rank: int) -> ir.Value:
        """bool (batch, 1 ..., total): which keys are tokens."""
        writing = self._writing
        if ("shown", rank) not in self._made:
            shown = writing.node("Greater", [self._mask, writing.constant(0)], "cache/mask/shown")
            units = writing.constant(list(range(1, rank - 1)))
            self._made["shown", rank] = writing.node("Unsqueeze", [shown, units], "cache/mask/by_key")
        return self._made["shown", rank]

    def _seen(self, band: Band) -> ir.Value:
        """bool (new, total): which slots a row looks at."""
        writing = self._writing
        if ("seen", band.window) not in self._made:
            if ("slots",) not in self._made:
                zero, one, end = writing.constant(0), writing.constant(1), writing.scalar("total")
                self._made["slots",] = writing.node("Range", [zero, end, one], "cache/mask/slots")
                rows = writing.node("Range", [writing.scalar("past"), end, one], "cache/mask/new_slots")
                self._made["rows",] = writing.node("Unsqueeze", [rows, writing.constant([1])], "cache/mask/rows")
            slots, rows = self._made["slots",], self._made["rows",]
            seen = writing.node("LessOrEqual", [slots, rows], "cache/mask/causal")
            if band.window is not None:
                first = writing.node("Sub", [rows, writing.constant(band.window)], "cache/mask/before_window")
                inside = writing.node("Greater", [slots, first], "cache/mask/window")
                seen = writing.node("And", [seen, inside], "cache/mask/in_window")
            self._made["seen", band.window] = seen
        return self._made["seen", band.window]

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
