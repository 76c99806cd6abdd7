"""How values of positions alone are written: at the whole length, and from there the rows that are new.

A tensor with one axis of positions is gathered by `position_ids`, which is what makes rows that are padded on the left
right. One with two, a mask, is read by slot: its rows are the last, its columns all.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from gpt_export.passes.cache.axes import (
    ANY,
    BATCH,
    ROWS,
    TRIED,
    Axes,
    Columns,
    Sizes,
    columns_of,
    constant_size,
    holds_rows,
    is_plain,
)
from gpt_export.passes.cache.dims import Writing
from gpt_export.passes.cache.evaluate import Array
from gpt_export.passes.cache.interpreter import Meaning
from gpt_export.passes.cache.lengths import candidate_lengths, probes
from gpt_export.passes.cache.refusal import refuse

_TO_THE_END = 2**63 - 1
_LARGEST_LITERAL = 4096
_REPEATING = {
    **{"ConstantOfShape": 0, "Expand": 1, "Cast": 1, "Identity": 1, "Unsqueeze": 1, "Squeeze": 1, "Neg": 1, "Not": 1},
    **{"Transpose": 1, "Reshape": 1},
    **{"Add": 2, "Sub": 2, "Mul": 2, "Div": 2},
}
"""Operators that give each place the same numbers if what they read does, and how many inputs hold numbers."""


class PositionWriter:
    """Writes values that depend on positions or on nothing into a new graph, each once."""

    def __init__(
        self, meaning: Meaning, writing: Writing, position_ids: ir.Value, mask: ir.Value, by_position: set[ir.Node]
    ) -> None:
        self._meaning = meaning
        self._writing = writing
        self._ids = position_ids
        self._mask = mask
        self._by_position = by_position
        self._key_ids: ir.Value | None = None
        self._written: dict[tuple[ir.Value, str], ir.Value] = {}
        self._gathered: dict[tuple[ir.Value, Axes, int], ir.Value] = {}

    def leaf(self, value: ir.Value, written: ir.Value) -> None:
        """Declares that `value`, a weight, is `written` in the new graph."""
        for batch in ("batch", "one"):
            self._written[value, batch] = written

    def aligned(self, node: ir.Node, value: ir.Value, output: Axes, rank_of_output: int, *, full: bool) -> ir.Value:
        """`value` as it meets an operator on new rows whose output has axes `output`.

        Args:
            full: whether every axis must have its whole length (a join), or may be one that broadcasts.
        """
        axes = self._meaning.facts[value].axes
        places = [rank_of_output - len(axes) + i for i in range(len(axes))]
        rows = [i for i, place in enumerate(places) if not is_plain(axes[i]) and holds_rows(output[place])]
        columns = [i for i, place in enumerate(places) if not is_plain(axes[i]) and columns_of(output[place])]
        if node in self._by_position and columns:
            return self._by_key(node, value, rows, columns, output)
        if not rows:
            return self.total(value, "batch" if _folds(axes) else "one")
        if not columns and (alike := self._alike_in_every_row(value)) is not None:
            return self._repeated(value, alike)
        if len(rows) > 1 or output[places[rows[0]]] != (ROWS,):
            raise refuse(node, "combines data with a table of positions that are folded into another axis")
        if columns:
            return self._slots(value, rows[0])
        gathered = self._gathered_rows(node, value, rows[0], output, places)
        return self._expanded(gathered, output) if full else gathered

    def _alike_in_every_row(self, value: ir.Value) -> Array | None:
        """The one row of a table that has nothing of the positions, such as zeros to scatter into; None for others."""
        if not self._tells_no_position(value):
            return None
        axes = self._meaning.facts[value].axes
        found = []
        for sizes in TRIED:
            array = row = self._meaning.evaluator.array(value, sizes)
            for i, of in enumerate(axes):
                row = row if is_plain(of) else row.take([0], i)
            if not np.array_equal(array, np.broadcast_to(row, array.shape), equal_nan=array.dtype.kind == "f"):
                return None
            found.append(row)
        one, other = found
        same = np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
        return one if same and one.size <= _LARGEST_LITERAL else None

    def _tells_no_position(self, value: ir.Value) -> bool:
        """Whether the numbers of `value` are made of constants alone, and only how many there are of the length."""
        if self._meaning.depends[value] == "nothing":
            return value not in self._meaning.weights and not self._meaning.reads_unknown(value)
        node = value.producer()
        if node is None or node.op_type not in _REPEATING:
            return False
        numbers = node.inputs[: _REPEATING[node.op_type]]
        return all(each is None or self._tells_no_position(each) for each in numbers)

    def _repeated(self, value: ir.Value, row: Array) -> ir.Value:
        """`row` for every new row of `value`."""
        key = (value, (), -1)
        if key not in self._gathered:
            writing = self._writing
            sizes = [writing.length(of, "new") for of in self._meaning.facts[value].axes]
            alike = writing.constant(row, row.dtype, name=str(value.name))
            self._gathered[key] = writing.node("Expand", [alike, writing.shape(sizes)], f"cache/{value.name}/new")
        return self._gathered[key]

    def total(self, value: ir.Value, batch: str) -> ir.Value:
        """`value` at the whole length; `batch` "one" where one row stands for the batch."""
        key = (value, batch)
        if key not in self._written:
            self._written[key] = self._literal(value) or self._copy(value, batch)
        return self._written[key]

    def _literal(self, value: ir.Value) -> ir.Value | None:
        """A constant where the value is known and the same at every size."""
        meaning = self._meaning
        if value in meaning.weights:
            return None
        arrays = [meaning.evaluator.array(value, sizes) for sizes in TRIED]
        if arrays[0].size > _LARGEST_LITERAL or arrays[0].shape != arrays[1].shape:
            return None
        if not np.array_equal(arrays[0], arrays[1], equal_nan=arrays[0].dtype.kind == "f"):
            return None
        if meaning.reads_unknown(value) or not self._holds_at_every_length(value, arrays[0]):
            return None
        return self._writing.constant(arrays[0], arrays[0].dtype, name=str(value.name))

    def _holds_at_every_length(self, value: ir.Value, array: Array) -> bool:
        """Whether `value` is `array` at each length at which something new may happen; no where that is far out."""
        meaning = self._meaning
        if meaning.depends[value] == "nothing":
            return True
        candidates = candidate_lengths(meaning, [value])
        if any(length > _LARGEST_LITERAL for length in candidates):
            return False
        for length in probes(candidates, _LARGEST_LITERAL):
            sizes = Sizes(1, length)
            there = meaning.evaluator.array(value, sizes)
            meaning.evaluator.forget_large(sizes)
            if not np.array_equal(there, array, equal_nan=array.dtype.kind == "f"):
                return False
        return True

    def _copy(self, value: ir.Value, batch: str) -> ir.Value:
        node = value.producer()
        assert node is not None
        if node.op_type == "Shape" and node.inputs[0] in self._meaning.facts:
            return self._shape(node, batch)
        inputs = [None if each is None else self.total(each, batch) for each in node.inputs]
        writing = self._writing
        name = writing.fresh(node.name or node.op_type)
        outputs = [ir.Value(name=writing.fresh(str(each.name))) for each in node.outputs]
        copy = ir.Node(
            node.domain, node.op_type, inputs, list(node.attributes.values()),
            outputs=outputs, name=name, overload=node.overload,
        )  # fmt: skip
        copy.metadata_props.update(node.metadata_props)
        writing.nodes.append(copy)
        for old, new in zip(node.outputs, outputs, strict=True):
            self._written[old, batch] = new
        return self._written[value, batch]

    def _shape(self, node: ir.Node, batch: str) -> ir.Value:
        start, end = (node.attributes.get(name) for name in ("start", "end"))
        of = node.inputs[0]
        assert of is not None
        axes = self._meaning.facts[of].axes[slice(start.as_int() if start else 0, end.as_int() if end else None)]
        return self._writing.shape([self._writing.length(each, "total", batch) for each in axes])

    def _slots(self, value: ir.Value, place: int) -> ir.Value:
        key = (value, (), place)
        if key not in self._gathered:
            writing = self._writing
            whole = self.total(value, "batch" if _folds(self._meaning.facts[value].axes) else "one")
            ends, places = writing.constant([_TO_THE_END]), writing.constant([place])
            name = f"cache/{value.name}/new_rows"
            self._gathered[key] = writing.node("Slice", [whole, writing.size("past"), ends, places], name)
        return self._gathered[key]

    def _by_key(self, node: ir.Node, value: ir.Value, rows: list[int], columns: list[int], output: Axes) -> ir.Value:
        """(batch, heads, new, total) of a table (heads, total, total) or (heads, 1, total), read by position."""
        key = (value, output, -1)
        if key in self._gathered:
            return self._gathered[key]
        axes = self._meaning.facts[value].axes
        column = columns[0]
        plain = len(output) == 4 and output[0] == (BATCH,) and column == len(axes) - 1
        alone = plain and (not rows or rows == [column - 1]) and axes[column] in ((ROWS,), (Columns(ANY),))
        if not alone or any(of and i < len(axes) - 3 and of != (BATCH,) for i, of in enumerate(axes)):
            raise refuse(node, "weighs tokens by where they are in the text, in a form that the pass does not know")
        writing, name = self._writing, f"cache/{value.name}"
        total, places = self.total(value, "one"), self._key_positions()
        if rows:
            row = writing.node("Unsqueeze", [self._ids, writing.constant([2])], f"{name}/row")
            start = writing.node("Mul", [row, writing.size("total")], f"{name}/row_start")
            columned = writing.node("Unsqueeze", [places, writing.constant([1])], f"{name}/column")
            places = writing.node("Add", [start, columned], f"{name}/entry")
        heads = max(1, Sizes(1, 1).of(axes[column - 2])) if column >= 2 else 1
        table = writing.node("Reshape", [total, writing.constant([heads, -1])], f"{name}/flat")
        made = writing.node("Gather", [table, places], f"{name}/at_positions", {"axis": 1})
        if rows:
            made = writing.node("Transpose", [made], f"{name}/in_place", {"perm": (1, 0, 2, 3)})
        else:
            made = writing.node("Transpose", [made], f"{name}/in_place", {"perm": (1, 0, 2)})
            made = writing.node("Unsqueeze", [made, writing.constant([2])], f"{name}/for_rows")
        self._gathered[key] = made
        return made

    def _key_positions(self) -> ir.Value:
        """int64 (batch, total): how many tokens are in front of each slot."""
        if self._key_ids is None:
            writing = self._writing
            counted = writing.node("CumSum", [self._mask, writing.constant(1)], "cache/counted")
            last = writing.node("Sub", [counted, writing.constant([1])], "cache/places")
            self._key_ids = writing.node("Max", [last, writing.constant([0])], "cache/key_positions")
        return self._key_ids

    def _gathered_rows(self, node: ir.Node, value: ir.Value, row: int, output: Axes, places: list[int]) -> ir.Value:
        """Rows of `value` at each token's position, its axes where `output` has them."""
        key = (value, output, places[0])
        if key in self._gathered:
            return self._gathered[key]
        axes = self._meaning.facts[value].axes
        batch = next((i for i, of in enumerate(output) if of and of[0] == BATCH), None)
        folded = 1 if batch is None or not is_plain(output[batch]) else constant_size(output[batch][1:])
        if batch is None or not is_plain(output[batch]) or (folded > 1 and batch > 0):
            raise refuse(node, "combines a table of positions with rows that are not those of a batch")
        others = [i for i in range(len(axes)) if i != row and places[i] != batch]
        kept = [i for i in others if axes[i]]
        writing, name = self._writing, f"cache/{value.name}"
        table = self._row_first(value, row, kept)
        made = writing.node("Gather", [table, self._ids], f"{name}/at_positions", {"axis": 0})
        order = [batch, places[row], *(places[i] for i in kept)]
        perm = sorted(range(len(order)), key=lambda i: order[i])
        if perm != sorted(perm):
            made = writing.node("Transpose", [made], f"{name}/in_place", {"perm": perm})
        units = [i for i in range(len(output)) if i not in order]
        if units:
            made = writing.node("Unsqueeze", [made, writing.constant(units)], f"{name}/by_row")
        made = self._by_head(made, output, folded, f"{name}/by_head")
        self._gathered[key] = made
        return made

    def _by_head(self, rows: ir.Value, output: Axes, heads: int, name: str) -> ir.Value:
        """(batch * heads, ...) of rows (batch, ...), where heads are folded into the batch."""
        if heads == 1:
            return rows
        writing = self._writing
        made = writing.node("Unsqueeze", [rows, writing.constant([1])], f"{name}/apart")
        made = writing.node("Expand", [made, writing.constant([1, heads, *[1] * (len(output) - 1)])], name)
        ends = writing.node("Shape", [rows], f"{name}/ends", {"start": 1})
        return writing.node("Reshape", [made, writing.shape([-1, ends])], f"{name}/folded")

    def _row_first(self, value: ir.Value, row: int, kept: list[int]) -> ir.Value:
        """(total, kept ...) of a value at the whole length."""
        axes = self._meaning.facts[value].axes
        writing = self._writing
        made = self.total(value, "one")
        order = [row, *kept]
        gone = [i for i in range(len(axes)) if i not in order]
        if gone:
            made = writing.node("Squeeze", [made, writing.constant(gone)], f"cache/{value.name}/table")
        left = [i for i in range(len(axes)) if i not in gone]
        perm = [left.index(i) for i in order]
        if perm != sorted(perm):
            made = writing.node("Transpose", [made], f"cache/{value.name}/row_first", {"perm": perm})
        return made

    def _expanded(self, value: ir.Value, output: Axes) -> ir.Value:
        """`value` repeated along the batch; the caller joins it along a constant axis."""
        writing = self._writing
        lengths = [writing.length(of, "new") if of in ((BATCH,), (ROWS,)) else 1 for of in output]
        return writing.node("Expand", [value, writing.shape(lengths)], "cache/expanded")


def _folds(axes: Axes) -> bool:
    """Whether the batch is folded with something else, so that one row cannot stand for it."""
    return any(BATCH in of and of != (BATCH,) for of in axes)
