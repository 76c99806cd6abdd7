"""One walk over the graph that gives each value its fact, by the rule of its operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from gpt_export.passes.cache.axes import BATCH, ROWS, TRIED, Axes, axes_of_shapes, constant_axes, holds_rows, is_plain
from gpt_export.passes.cache.evaluate import Evaluator
from gpt_export.passes.cache.facts import Depends, Fact, Step
from gpt_export.passes.cache.refusal import CacheRefusedError, refuse
from gpt_export.passes.cache.rules import RULES
from gpt_export.passes.cache.rules.choices import with_places
from gpt_export.passes.cache.rules.reading import Found, OverRowsError, Reading
from gpt_export.runtime.signature import INPUT_IDS

Array = np.ndarray[Any, Any]
_ORDER: tuple[Depends, ...] = ("nothing", "positions", "data")


@dataclass(slots=True)
class Meaning:
    """What a graph means: a fact for each value, a step for each node of data, and what was found on the way."""

    facts: dict[ir.Value, Fact]
    depends: dict[ir.Value, Depends]
    steps: dict[ir.Node, Step]
    found: Found
    evaluator: Evaluator
    weights: set[ir.Value]
    """Weights, and what is made of them: their shapes are known, their numbers are not."""
    longest: int
    """The length up to which it is worth looking at anything."""

    def reads_unknown(self, value: ir.Value) -> bool:
        """Whether numbers that nobody knows go into `value`."""
        stack, seen = [value], {value}
        while stack:
            top = stack.pop()
            if top in self.evaluator.unknown:
                return True
            node = top.producer()
            if node is None or node.op_type == "Shape":
                continue
            new = [each for each in node.inputs if each is not None and each not in seen]
            seen.update(new)
            stack.extend(new)
        return False


def interpret(graph: ir.Graph, weights: Mapping[str, Callable[[], Array]], opset: int, longest: int) -> Meaning:
    """The meaning of `graph`, whose input is `input_ids` and whose other inputs are weights.

    Args:
        weights: how to get the numbers of weights, by the name of their source.
        longest: the length up to which it is worth looking at anything.

    Raises:
        CacheRefusedError: an operator mixes positions in a way that no rule knows.
    """
    flipped: frozenset[ir.Node] = frozenset()
    while True:
        walk = _Walk(graph, weights, opset, flipped)
        try:
            return walk.run(longest)
        except OverRowsError as over:
            if over.product.node in flipped:
                raise
            flipped |= {over.product.node}


class _Walk:
    def __init__(
        self, graph: ir.Graph, weights: Mapping[str, Callable[[], Array]], opset: int, flipped: frozenset[ir.Node]
    ) -> None:
        self._graph = graph
        self._facts: dict[ir.Value, Fact] = {}
        self._depends: dict[ir.Value, Depends] = {}
        self._steps: dict[ir.Node, Step] = {}
        self._found = Found(flipped=flipped)
        self._evaluator = Evaluator(self._facts, weights, opset)
        self._weights: set[ir.Value] = set()
        self._unread: dict[ir.Value, CacheRefusedError] = {}
        self._last: set[ir.Value] = set()

    def run(self, longest: int) -> Meaning:
        for value in (*self._graph.inputs, *self._graph.initializers.values()):
            self._enter(value)
        for node in self._graph:
            self._visit(node)
            if any(value in self._found.places and value.is_graph_output() for value in node.outputs):
                raise refuse(node, "gives the places of what the ids choose")
        return Meaning(self._facts, self._depends, self._steps, self._found, self._evaluator, self._weights, longest)

    def _enter(self, value: ir.Value) -> None:
        if value.name == INPUT_IDS:
            self._set(value, ((BATCH,), (ROWS,)), "data")
            return
        if value.shape is None or not all(isinstance(size, int) for size in value.shape):
            raise CacheRefusedError(f"no cache is derived, because the size of the weight {value.name} is not known")
        self._set(value, constant_axes(value.shape.numpy()), "nothing")
        if value.const_value is None:
            self._weights.add(value)

    def _set(self, value: ir.Value, axes: Axes | None, depends: Depends) -> None:
        self._depends[value] = depends
        if axes is not None:
            self._facts[value] = Fact(axes, depends)

    def _visit(self, node: ir.Node) -> None:
        depends = self._dependence(node)
        if depends == "positions" or (depends == "nothing" and not self._holds_weights(node)):
            self._evaluate(node, depends)
            return
        rule = RULES.get(node.op_type) if node.domain == "" else None
        if rule is None:
            if depends == "nothing":
                self._evaluate(node, depends)
                self._weights.update(node.outputs)
                return
            raise refuse(node, "has no rule that says what it does to positions")
        self._check_typed(node)
        self._check_read(node)
        reading = Reading(node, self._facts, self._evaluator, self._found)
        of_places = any(value in self._found.places for value in node.inputs)
        step = with_places(reading, rule) if of_places else rule(reading)
        if depends == "data":
            self._check_positions(node, step)
            self._steps[node] = step
        if step.last or any(value in self._last for value in node.inputs):
            self._last.update(node.outputs)
        if step.unread is not None:
            self._unread.update(dict.fromkeys(node.outputs, step.unread))
        for value, axes in zip(node.outputs, step.outputs, strict=False):
            self._set(value, axes, depends)
            if depends == "nothing":
                self._weights.add(value)

    def _dependence(self, node: ir.Node) -> Depends:
        found = max((_ORDER.index(self._depends[value]) for value in node.inputs if value is not None), default=0)
        return "positions" if node.op_type in ("Shape", "Size") and found == 2 else _ORDER[found]

    def _holds_weights(self, node: ir.Node) -> bool:
        """Whether `node` reads a weight, or what is made of one: its shape is known and its numbers are not."""
        return any(value is not None and value in self._weights for value in node.inputs)

    def _evaluate(self, node: ir.Node, depends: Depends) -> None:
        for value in node.outputs:
            arrays = [self._evaluator.array(value, sizes) for sizes in (TRIED if depends == "positions" else TRIED[:1])]
            shapes = [array.shape for array in arrays]
            axes = axes_of_shapes(shapes) if depends == "positions" else constant_axes(shapes[0])
            self._set(value, axes, depends)

    def _check_typed(self, node: ir.Node) -> None:
        for value in node.inputs:
            if value is not None and value not in self._facts:
                raise refuse(node, "reads positions in a form that is neither the batch nor the sequence")

    def _check_read(self, node: ir.Node) -> None:
        """Refuses to read what only has a shape, and to set the last position alone against others."""
        data = [value for value in node.inputs if value is not None and self._depends[value] != "nothing"]
        for value in data:
            if value in self._unread:
                raise self._unread[value]
        alone = [value in self._last for value in data if any(holds_rows(of) for of in self._facts[value].axes)]
        if any(alone) and not all(alone):
            raise refuse(node, "sets the last position against others")

    def _check_positions(self, node: ir.Node, step: Step) -> None:
        """Refuses arithmetic with the length itself."""
        if step.alias is not None:
            return
        for i, value in enumerate(node.inputs):
            if value is None or i in step.written or self._depends[value] != "positions":
                continue
            if all(is_plain(of) for of in self._facts[value].axes) and not self._is_fixed(value):
                raise refuse(node, "computes with the length of the sequence itself")

    def _is_fixed(self, value: ir.Value) -> bool:
        first, second = (self._evaluator.array(value, sizes) for sizes in TRIED)
        return first.shape == second.shape and bool(np.array_equal(first, second, equal_nan=True))
