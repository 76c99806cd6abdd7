"""How a tensor of a text lies in memory: by tokens, by heads, or as rows of all tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from gpt_export.passes.building import constant, graph_input, name_outputs
from gpt_export.runtime.signature import INPUT_IDS

Array = np.ndarray


@dataclass(frozen=True, slots=True)
class Form:
    """One of three orders of axes; the numbers of one token are `width` in each of them.

    tokens: (batch, new, *rest); heads: (batch, *rest but the last, new, last); rows: (batch x new, *rest).
    """

    order: Literal["tokens", "heads", "rows"]
    rest: tuple[int, ...]

    @property
    def width(self) -> int:
        """How many numbers a token has."""
        return math.prod(self.rest)

    def laid_out(self, flat: Array) -> Array:
        """`flat` (batch, new, width) in this form."""
        batch, new, _ = flat.shape
        if self.order == "rows":
            return np.ascontiguousarray(flat.reshape(batch * new, *self.rest))
        array = flat.reshape(batch, new, *self.rest)
        return np.ascontiguousarray(np.moveaxis(array, 1, -2) if self.order == "heads" else array)

    def flat(self, array: Array, batch: int) -> Array:
        """What `laid_out` was given: (batch, new, width)."""
        if self.order == "heads":
            array = np.moveaxis(array, -2, 1)
        return array.reshape(batch, -1, self.width)

    def flattened(self, graph: ir.Graph, value: ir.Value, name: str) -> tuple[list[ir.Node], ir.Value]:
        """New nodes from `value` in this form to (batch, new, width), and what they give."""
        if self.order == "tokens" and len(self.rest) == 1:
            return [], value
        nodes: list[ir.Node] = []
        dims = [0, 0, self.width]
        if self.order == "heads":
            axes = len(self.rest) + 2
            perm = [0, axes - 2, *range(1, axes - 2), axes - 1]
            nodes.append(_node("Transpose", [value], f"{name}/by_token", perm=perm))
            value = nodes[-1].outputs[0]
        elif self.order == "rows":
            ids = _node("Shape", [graph_input(graph, INPUT_IDS)], f"{name}/tokens")
            width = constant(f"{name}/width", [self.width])
            whole = _node("Concat", [ids.outputs[0], width.outputs[0]], f"{name}/shape", axis=0)
            nodes += [ids, width, whole]
            nodes.append(_node("Reshape", [value, whole.outputs[0]], f"{name}/flat"))
            return nodes, nodes[-1].outputs[0]
        shape = constant(f"{name}/shape", dims)
        nodes += [shape, _node("Reshape", [value, shape.outputs[0]], f"{name}/flat")]
        return nodes, nodes[-1].outputs[0]

    def restored(self, flat: ir.Value, name: str) -> tuple[list[ir.Node], ir.Value]:
        """New nodes from (batch, new, width) to this form, and what they give."""
        if self.order == "tokens" and len(self.rest) == 1:
            return [], flat
        dims = [-1, *self.rest] if self.order == "rows" else [0, 0, *self.rest]
        shape = constant(f"{name}/shape", dims)
        nodes = [shape, _node("Reshape", [flat, shape.outputs[0]], f"{name}/heads")]
        if self.order == "heads":
            axes = len(self.rest) + 2
            perm = [0, *range(2, axes - 1), 1, axes - 1]
            nodes.append(_node("Transpose", [nodes[-1].outputs[0]], f"{name}/by_head", perm=perm))
        return nodes, nodes[-1].outputs[0]


def form_of(shape: tuple[int, ...], batch: int, new: int) -> Form | None:
    """The form of a tensor of `shape` where the text is (batch, new), None if it has none."""
    if len(shape) >= 3 and shape[:2] == (batch, new):
        return Form("tokens", shape[2:])
    if len(shape) >= 4 and shape[0] == batch and shape[-2] == new:
        return Form("heads", (*shape[1:-2], shape[-1]))
    if len(shape) >= 2 and shape[0] == batch * new:
        return Form("rows", shape[1:])
    return None


def _node(op_type: str, inputs: list[ir.Value], name: str, **attributes: object) -> ir.Node:
    return name_outputs(ir.node(op_type, inputs, attributes=attributes, name=name))  # type: ignore[arg-type]
