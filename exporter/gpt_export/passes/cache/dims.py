"""The new graph as it is written: nodes, constants, and the sizes that shapes are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from gpt_export.passes.cache.axes import BATCH, Axes, Axis, Chosen, Columns, constant_size, is_constant
from gpt_export.passes.cache.refusal import CacheRefusedError

Array = np.ndarray[Any, Any]


class Writing:
    """Nodes of a graph that is being written. Equal constants and sizes are written once.

    Args:
        ids: int64 (batch, new).
        mask: int64 (batch, total).
    """

    def __init__(self, ids: ir.Value, mask: ir.Value) -> None:
        self.nodes: list[ir.Node] = []
        self._ids, self._mask = ids, mask
        self._names: dict[str, int] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._sizes: dict[str, ir.Value] = {}

    def reserve(self, names: Sequence[str]) -> None:
        """Keeps `names` for others."""
        self._names.update(dict.fromkeys(names, 1))

    def fresh(self, name: str) -> str:
        """`name`, numbered where it is taken."""
        count = self._names.get(name, 0)
        self._names[name] = count + 1
        return name if count == 0 else self.fresh(f"{name}_{count}")

    def node(
        self, op_type: str, inputs: Sequence[ir.Value | None], name: str, attributes: Mapping[str, Any] | None = None
    ) -> ir.Value:
        """The only output of a new node, both called `name`."""
        name = self.fresh(name)
        node = ir.node(op_type, inputs, attributes=attributes, name=name, outputs=[ir.Value(name=name)])
        self.nodes.append(node)
        return node.outputs[0]

    def constant(self, value: Any, dtype: Any = np.int64, name: str = "cache/number") -> ir.Value:
        """A constant, written once."""
        array = np.asarray(value, dtype)
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._constants:
            made = self.node("Constant", [], name, {"value": ir.tensor(array)})
            made.shape = ir.Shape(array.shape)
            made.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
            self._constants[key] = made
        return self._constants[key]

    def size(self, of: str) -> ir.Value:
        """int64 [1]: `batch`, `new`, `total` or `past`."""
        if of not in self._sizes:
            if of == "past":
                made = self.node("Sub", [self.size("total"), self.size("new")], "cache/past")
            else:
                source, at = {"batch": (self._ids, 0), "new": (self._ids, 1), "total": (self._mask, 1)}[of]
                made = self.node("Shape", [source], f"cache/{of}", {"start": at, "end": at + 1})
            self._sizes[of] = made
        return self._sizes[of]

    def scalar(self, of: str) -> ir.Value:
        """int64 []: as `size`."""
        if f"{of}/scalar" not in self._sizes:
            self._sizes[f"{of}/scalar"] = self.node("Squeeze", [self.size(of)], f"cache/{of}_scalar")
        return self._sizes[f"{of}/scalar"]

    def length(self, of: Axis, rows: str, batch: str = "batch") -> int | ir.Value:
        """How long an axis is: a number, or int64 [1].

        Args:
            rows: the size that positions have here, `new` or `total`.
            batch: "batch", or "one" where one row stands for all.
        """
        if is_constant(of):
            return constant_size(of)
        made: ir.Value | None = None
        number = 1
        for atom in of:
            if isinstance(atom, int):
                number *= atom
                continue
            if atom == BATCH and batch == "one":
                continue
            each = self._atom(atom, rows)
            made = each if made is None else self.node("Mul", [made, each], "cache/size")
        if made is None:
            return number
        return made if number == 1 else self.node("Mul", [made, self.constant([number])], "cache/size")

    def _atom(self, atom: Any, rows: str) -> ir.Value:
        if isinstance(atom, Chosen):
            raise CacheRefusedError(
                "no cache is derived, because the number of entries that the ids choose is computed with"
            )
        if isinstance(atom, Columns):
            extra = atom.front + atom.back
            total = self.size("total")
            return self.node("Add", [total, self.constant([extra])], "cache/columns") if extra else total
        return self.size("batch" if atom == BATCH else rows)

    def shape(self, lengths: Sequence[int | ir.Value]) -> ir.Value:
        """int64 [rank] of numbers and sizes; one size that is not known may be left to -1 by the caller."""
        if all(isinstance(each, int) for each in lengths):
            return self.constant([int(each) for each in lengths if isinstance(each, int)])
        parts: list[ir.Value] = []
        run: list[int] = []
        for each in lengths:
            if isinstance(each, int):
                run.append(each)
                continue
            if run:
                parts.append(self.constant(run))
                run = []
            parts.append(each)
        if run:
            parts.append(self.constant(run))
        return parts[0] if len(parts) == 1 else self.node("Concat", parts, "cache/shape", {"axis": 0})

    def reshape(self, value: ir.Value, source: Axes, target: Axes, rows: str, name: str) -> ir.Value:
        """`value` with its axes cut anew, by a constant shape where one is enough."""
        if source == target:
            return value
        return self.node("Reshape", [value, self.target(source, target, rows)], name)

    def target(self, source: Axes, target: Axes, rows: str) -> ir.Value:
        """The shape argument of a Reshape: 0 for an axis that stays in its place, -1 for one that is not known."""
        lengths: list[int | ir.Value | None] = []
        for i, of in enumerate(target):
            if is_constant(of):
                lengths.append(constant_size(of))
            elif i < len(source) and source[i] == of:
                lengths.append(0)
            else:
                lengths.append(None)
        unknown = [i for i, each in enumerate(lengths) if each is None]
        if len(unknown) == 1:
            lengths[unknown[0]] = -1
        return self.shape(
            [self.length(of, rows) if each is None else each for each, of in zip(lengths, target, strict=True)]
        )
