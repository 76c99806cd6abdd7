"""What depends on the text, and through which values it must pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import onnx_ir as ir

from gpt_export.runtime.signature import INPUT_IDS
from gpt_export.weights.layout import layout_of

_OF_THE_SHAPE_ALONE = frozenset({"Shape", "Size"})
_PAST = "past_key_values."
ELEMENTWISE = frozenset(
    {
        *("Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Reciprocal", "Neg", "Abs", "Exp", "Log", "Max", "Min", "Clip"),
        *("Tanh", "Erf", "Sigmoid", "Softplus", "Relu", "Cast", "CastLike", "Identity"),
    }
)
"""Operators that compute each number from the numbers at its place."""


class Dataflow:
    """The values of a graph that depend on the ids or the past, and the order of its nodes.

    What depends on shapes, positions, the mask and weights alone is not data: it can be evaluated without a text.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self._data: set[ir.Value] = {
            value for value in graph.inputs if value.name == INPUT_IDS or str(value.name).startswith(_PAST)
        }
        self._graph = graph
        self._from: dict[str, set[ir.Value]] = {}
        self._varying = {value for value in graph.inputs if layout_of(value) is None}
        self._order: dict[ir.Node, int] = {}
        for index, node in enumerate(graph):
            self._order[node] = index
            if any(value in self._varying for value in node.inputs):
                self._varying.update(node.outputs)
            if node.op_type not in _OF_THE_SHAPE_ALONE and any(value in self._data for value in node.inputs):
                self._data.update(node.outputs)

    def varies_beside_data(self, node: ir.Node) -> bool:
        """Whether `node` reads, beside data, what depends on the mask, the positions or the sizes of a text."""
        return any(value in self._varying and value not in self._data for value in node.inputs)

    def depends_on(self, value: ir.Value, name: str) -> bool:
        """Whether `value` is computed from the input called `name`."""
        if name not in self._from:
            source = {value for value in self._graph.inputs if value.name == name}
            for node in self._order:
                if any(each in source for each in node.inputs):
                    source.update(node.outputs)
            self._from[name] = source
        return value in self._from[name]

    def __contains__(self, value: ir.Value | None) -> bool:
        return value in self._data

    def data_inputs(self, node: ir.Node) -> list[ir.Value]:
        """The inputs of `node` that are data, each once."""
        return list(dict.fromkeys(value for value in node.inputs if value is not None and value in self._data))

    def readers(self, value: ir.Value) -> list[ir.Node]:
        """The nodes that compute data from `value`, in order, each once."""
        nodes = {node for node, _ in value.uses() if any(out in self._data for out in node.outputs)}
        return sorted(nodes, key=self.place)

    def place(self, node: ir.Node | None) -> int:
        """Where `node` stands in the graph; -1 for what has no producer."""
        return -1 if node is None else self._order.get(node, -1)

    def gates(self, target: ir.Value, passable: Callable[[ir.Node], bool]) -> list[ir.Value]:
        """The values that all data on its way to `target` passes through, `target` first.

        The walk back ends at the first node that is not `passable`.
        """
        frontier = {target}
        found: list[ir.Value] = []
        while frontier:
            if len(frontier) == 1:
                found.extend(frontier)
            latest = max(frontier, key=lambda value: self.place(value.producer()))
            node = latest.producer()
            if node is None or not passable(node):
                break
            frontier = {value for value in frontier if value.producer() is not node}
            frontier.update(self.data_inputs(node))
        return found

    def functions_of(self, start: ir.Value, passable: Callable[[ir.Node], bool]) -> list[ir.Value]:
        """`start` and the values that are computed from it, and no other data, by `passable` nodes; in order."""
        found: dict[ir.Value, None] = {start: None}
        waiting = self.readers(start)
        seen: set[ir.Node] = set()
        while waiting:
            node = min(waiting, key=self.place)
            waiting.remove(node)
            if node in seen or not passable(node) or any(value not in found for value in self.data_inputs(node)):
                continue
            seen.add(node)
            for out in node.outputs:
                found[out] = None
                waiting += [reader for reader in self.readers(out) if reader not in seen and reader not in waiting]
        return list(found)

    def behind(self, node: ir.Node) -> list[ir.Value]:
        """What is computed from `node` before the next product with a weight."""
        found: dict[ir.Value, None] = dict.fromkeys(node.outputs)
        for value in (waiting := list(found)):
            for reader in self.readers(value):
                if not multiplies_weight(reader):
                    waiting += [out for out in reader.outputs if out not in found]
                    found.update(dict.fromkeys(reader.outputs))
        return list(found)

    def joins(self, values: Iterable[ir.Value]) -> list[ir.Node]:
        """The nodes that compute data from one of `values` and from other data."""
        own = set(values)
        nodes = {node for value in own for node in self.readers(value) if set(self.data_inputs(node)) - own}
        return sorted(nodes, key=self.place)


def multiplies_weight(node: ir.Node) -> bool:
    """Whether `node` is a product with a weight of two axes or more, or a lookup in one."""
    return any(
        value is not None and value.shape is not None and len(value.shape) > 1 and _is_weight(value)
        for value in node.inputs
    )


def _is_weight(value: ir.Value) -> bool:
    producer = value.producer()
    if producer is not None and producer.op_type == "Transpose":
        return any(each is not None and layout_of(each) is not None for each in producer.inputs)
    return layout_of(value) is not None
