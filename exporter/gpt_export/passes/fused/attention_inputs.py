"""What GroupQueryAttention is given beside queries, keys and values: lengths, padding, tables, sinks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from gpt_export_models.gpt import MASK_FILL

from gpt_export.passes.building import CONTRIB, constant, graph_input, name_outputs
from gpt_export.passes.fused.attention_reading import Reader, Reading
from gpt_export.passes.fused.probes import Probe
from gpt_export.passes.fused.rotation import Rotation
from gpt_export.runtime.signature import ATTENTION_MASK, INPUT_IDS, POSITION_IDS
from gpt_export.weights.layout import layout_of

NO_SINK = -6e4
"""Beside any score its exp is 0, even where all keys are hidden: a sink that takes no attention. Finite in float16."""

_PROBES = (Probe(2, 9, 5, (0, 3)), Probe(1, 15, 1))
"""Texts on which biases of two layers are compared."""


class AttentionInputs:
    """Makes the inputs of the operators of one graph; what several layers need is made once.

    `head_sink` is given to every layer, although at `NO_SINK` it does nothing, because onnxruntime 1.32 then takes its
    kernel for whole score matrices; the tiled one takes more than twice as long for a prompt on machines whose
    second-level cache it cannot learn.

    Keys and queries are turned in front of the operator: for several new tokens it counts positions from the first
    row's first one (onnxruntime 1.32, whatever `position_ids` it gets), and rows behind padding have others.
    """

    def __init__(self, graph: ir.Graph, reader: Reader) -> None:
        self._graph, self._reader = graph, reader
        self._biases: list[tuple[ir.Value, list[np.ndarray]]] = []
        self._mask: dict[str, ir.Value] = {}
        self._constants: dict[tuple[str, bytes], ir.Value] = {}

    def of(self, reading: Reading, name: str) -> tuple[list[ir.Node], list[ir.Value | None]]:
        """New nodes in front of the operator called `name`, and its inputs."""
        if not self._mask:
            self._mask = _mask_parts(self._graph)
        nodes, query, key, value = self._operands(reading, name)
        bias = self._mask["bias"]
        if reading.scores.bias != "none":
            added, bias = self._own_bias(reading, name)
            nodes += added
        more, sink = self._sink(reading, name)
        past = (reading.site.past_key, reading.site.past_value, self._mask["last"], self._mask["total"])
        return [*nodes, *more], [query, key, value, *past, None, None, None, bias, sink]

    def _own_bias(self, reading: Reading, name: str) -> tuple[list[ir.Node], ir.Value]:
        """What the graph itself adds to the scores of a layer: that of an earlier layer where it is the same."""
        added, bias = _own_bias(self._graph, reading, name)
        numbers = [self._reader.evaluate([bias], self._reader.inputs(probe))[0] for probe in _PROBES]
        for known, others in self._biases:
            if all(np.array_equal(one, other) for one, other in zip(numbers, others, strict=True)):
                for node in added:  # they were never put into the graph
                    for index in range(len(node.inputs)):
                        node.replace_input_with(index, None)
                return [], known
        self._biases.append((bias, numbers))
        return added, bias

    def _operands(
        self, reading: Reading, name: str
    ) -> tuple[list[ir.Node], ir.Value, ir.Value | None, ir.Value | None]:
        raws = (reading.query, reading.key, reading.new_value)
        if reading.rotation is None and (packed := packed_operands(reading)):
            return [], packed, None, None
        nodes: list[ir.Node] = []
        values = []
        for raw, kind, heads in zip(raws, ("query", "key", "value"), (reading.heads, reading.kv_heads, 0), strict=True):
            added, flat = raw.form.flattened(self._graph, raw.value, f"{name}/{kind}")
            nodes += added
            if heads and reading.rotation is not None:
                nodes.append(self._turned(flat, reading.rotation, heads, f"{name}/{kind}"))
                flat = nodes[-1].outputs[0]
            values.append(flat)
        return nodes, values[0], values[1], values[2]

    def _turned(self, flat: ir.Value, rotation: Rotation, heads: int, name: str) -> ir.Node:
        """A node that turns `flat` (batch, new, heads x width)."""
        tables = (self._constant("/rotary/cos", rotation.cos), self._constant("/rotary/sin", rotation.sin))
        node = ir.node(
            "RotaryEmbedding",
            [flat, graph_input(self._graph, POSITION_IDS), *tables],
            attributes={
                "interleaved": int(rotation.interleaved),
                "num_heads": heads,
                "rotary_embedding_dim": rotation.width,
            },
            domain=CONTRIB,
            name=f"{name}/turned",
        )
        return name_outputs(node)

    def _constant(self, name: str, array: np.ndarray) -> ir.Value:
        key = (name, array.tobytes())
        if key not in self._constants:
            number = sum(each == name for each, _ in self._constants)
            node = constant(f"{name}_{number}" if number else name, array, array.dtype)
            self._graph.insert_before(self._graph[0], [node])
            self._constants[key] = node.outputs[0]
        return self._constants[key]

    def _sink(self, reading: Reading, name: str) -> tuple[list[ir.Node], ir.Value]:
        sink = reading.scores.sink
        if sink is None:
            return [], self._constant("/mask/no_sink", np.full(reading.heads, NO_SINK, np.float32))
        weight = _sink_weight(reading)
        if weight is None:
            return [], self._constant("/mask/sink", sink.astype(np.float32))
        if len(weight.shape or ()) == 1:
            return [], weight
        shape = constant(f"{name}/sink_shape", [-1])
        reshape = name_outputs(ir.node("Reshape", [weight, shape.outputs[0]], name=f"{name}/sink"))
        return [shape, reshape], reshape.outputs[0]


def packed_operands(reading: Reading) -> ir.Value | None:
    """The tensor that query, key and value are the three parts of, in this order, as the operator may read it."""
    raws = (reading.query, reading.key, reading.new_value)
    split = raws[0].value.producer()
    if split is None or split.op_type != "Split" or [raw.value for raw in raws] != list(split.outputs):
        return None
    flat = all(raw.form.order == "tokens" and len(raw.form.rest) == 1 for raw in raws)
    return split.inputs[0] if flat else None


def _sink_weight(reading: Reading) -> ir.Value | None:
    """The weight that is the sink of each head: the only one of its size that goes into the softmax beside data."""
    stack = [reading.site.logits]
    found: set[ir.Value] = set()
    seen: set[ir.Value] = set()
    while stack:
        value = stack.pop()
        if value in seen or value is reading.site.scores:
            continue
        seen.add(value)
        size = np.prod(value.shape.numpy()) if layout_of(value) and value.shape is not None else 0
        if size == reading.heads:
            found.add(value)
        node = value.producer()
        stack += [each for each in (node.inputs if node else ()) if each is not None]
    return found.pop() if len(found) == 1 else None


def _own_bias(graph: ir.Graph, reading: Reading, name: str) -> tuple[list[ir.Node], ir.Value]:
    """Nodes that compute what the graph itself makes of scores of 0: (batch, heads, new, total)."""
    site, nodes = reading.site, list[ir.Node]()
    add, given = _adders(nodes, f"{name}/bias")
    ids, mask = graph_input(graph, INPUT_IDS), graph_input(graph, ATTENTION_MASK)
    rows, new = add("Shape", [ids], "rows", start=0, end=1), add("Shape", [ids], "new", start=1, end=2)
    total = add("Shape", [mask], "total", start=1, end=2)
    whole = add("Concat", [rows, given("heads", [reading.heads]), new, total], "shape", axis=0)
    zeros = add("ConstantOfShape", [whole], "zeros")
    leading = given("leading", [-1, *reading.scores_shape[1:-2]])
    zeros = add("Reshape", [zeros, add("Concat", [leading, new, total], "scores_shape", axis=0)], "scores")
    copies: dict[ir.Value, ir.Value] = {site.scores: zeros}
    for node in _between(site.scores, site.logits):
        inputs = [copies.get(value, value) if value is not None else None for value in node.inputs]
        copy = ir.node(
            node.op_type, inputs, attributes=dict(node.attributes), domain=node.domain,
            num_outputs=len(node.outputs), name=f"{name}/bias/{node.outputs[0].name}",
        )  # fmt: skip
        nodes.append(name_outputs(copy))
        copies.update(zip(node.outputs, copy.outputs, strict=True))
    bias = copies[site.logits]
    if reading.scores.sink is not None:
        bias = add("Slice", [bias, given("first", [0]), given("last", [-1]), given("columns", [-1])], "keys")
    return nodes, add("Reshape", [bias, whole], "whole")


def _between(start: ir.Value, end: ir.Value) -> list[ir.Node]:
    """The nodes on the ways from `start` to `end`, shapes included, in order."""
    ordered: list[ir.Node] = []
    on_the_way: dict[ir.Value, bool] = {start: True}

    def visit(value: ir.Value) -> bool:
        if value not in on_the_way:
            node = value.producer()
            inputs = [] if node is None else [each for each in node.inputs if each is not None]
            reached = [visit(each) for each in inputs]  # every branch, so that all their nodes are in `ordered`
            on_the_way[value] = any(reached)
            if node is not None and any(reached) and node not in ordered:
                ordered.append(node)
        return on_the_way[value]

    visit(end)
    return ordered


def _adders(nodes: list[ir.Node], name: str) -> tuple[Callable[..., ir.Value], Callable[..., ir.Value]]:
    """Two functions that append to `nodes` under `name`: a node of any operator, and a constant."""

    def add(op_type: str, inputs: list[ir.Value], what: str, **attributes: Any) -> ir.Value:
        nodes.append(name_outputs(ir.node(op_type, inputs, attributes=attributes, name=f"{name}/{what}")))
        return nodes[-1].outputs[0]

    def given(what: str, value: Any, dtype: Any = np.int64) -> ir.Value:
        nodes.append(constant(f"{name}/{what}", value, dtype))
        return nodes[-1].outputs[0]

    return add, given


def _mask_parts(graph: ir.Graph) -> dict[str, ir.Value]:
    """What the operator asks for, put in front of the graph.

    `total` (int32 scalar) past and new tokens, `last` (int32, batch) the index of a row's last one, and `bias` (batch,
    1, new, total) `MASK_FILL` where a key is padding, else 0.
    """
    ids, mask = graph_input(graph, INPUT_IDS), graph_input(graph, ATTENTION_MASK)
    nodes: list[ir.Node] = []
    add, given = _adders(nodes, "/mask")
    one = given("one", [1])
    length = add("Shape", [mask], "length", start=1, end=2)
    total = add("Squeeze", [add("Cast", [length], "length_32", to=ir.DataType.INT32)], "total")
    rows = add("Shape", [ids], "rows", start=0, end=1)
    last = add("Expand", [add("Sub", [total, given("one_32", 1, np.int32)], "last_index"), rows], "last")
    hidden = add("Sub", [given("shown", 1, np.float32), add("Cast", [mask], "float", to=ir.DataType.FLOAT)], "hidden")
    fill = add("Mul", [hidden, given("fill", MASK_FILL, np.float32)], "filled")
    by_key = add("Unsqueeze", [fill, given("axes", [1, 2])], "by_key")
    new = add("Shape", [ids], "new", start=1, end=2)
    bias = add("Expand", [by_key, add("Concat", [one, one, new, one], "bias_shape", axis=0)], "bias")
    graph.insert_before(graph[0], nodes)
    return {"total": total, "last": last, "bias": bias}
