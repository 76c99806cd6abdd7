"""Activations as (tokens, width) wherever an operator does not need to know the batch."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from gpt_export.passes.building import constant, graph_input, name_outputs
from gpt_export.passes.fused.dataflow import ELEMENTWISE, multiplies_weight
from gpt_export.passes.fused.facts import ACTIVATIONS
from gpt_export.passes.fused.last_logits import KEPT
from gpt_export.passes.quantized.tokens import FLAT
from gpt_export.runtime.signature import INPUT_IDS, POSITION_IDS

_LAST_AXIS = frozenset(
    {"LayerNormalization", "SkipLayerNormalization", "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization"}
)


class FlattenTokens(InPlacePass):
    """Looks tokens up in one row, and gives batch and sequence back in front of attention and of the last slice.

    Quantising by token needs (tokens, width); without this every product would reshape on both sides. A graph in which
    any other operator counts the axes of what it reads is left as it is.
    """

    def call(self, model: ir.Model) -> PassResult:
        graph = model.graph
        if not _takes_rows(graph):
            return PassResult(model, modified=False)
        row = constant("/flat/row", [-1])
        graph.insert_before(graph[0], [row])
        for name in (INPUT_IDS, POSITION_IDS):
            ids = graph_input(graph, name)
            lookups = [(node, index) for node, index in ids.uses() if node.op_type == "Gather" and index == 1]
            flat = name_outputs(ir.node("Reshape", [ids, row.outputs[0]], name=f"/flat/{name}"))
            graph.insert_after(row, [flat])
            for node, index in lookups:
                node.replace_input_with(index, flat.outputs[0])
        shape = name_outputs(ir.node("Shape", [graph_input(graph, INPUT_IDS)], name="/flat/batch_and_sequence"))
        rest = constant("/flat/rest", [-1])
        whole = name_outputs(
            ir.node("Concat", [shape.outputs[0], rest.outputs[0]], attributes={"axis": 0}, name="/flat/whole")
        )
        graph.insert_after(row, [shape, rest, whole])
        for node in list(graph):
            if node.op_type == "GroupQueryAttention":
                _unflatten_input(graph, node, whole.outputs[0])
                _flatten_output(graph, node)
            elif node.op_type == "Slice" and node.name == KEPT:
                _unflatten_input(graph, node, whole.outputs[0])
        model.meta[FLAT] = True
        return PassResult(model, modified=True)


def _takes_rows(graph: ir.Graph) -> bool:
    """Whether what is computed from the lookups, up to the last slice, is the same with batch and sequence in one."""
    given = {value.name for value in graph.inputs}
    if not {INPUT_IDS, POSITION_IDS} <= given or KEPT not in {node.name for node in graph}:
        return False
    waiting = [
        node.outputs[0]
        for name in (INPUT_IDS, POSITION_IDS)
        for node, index in graph_input(graph, name).uses()
        if node.op_type == "Gather" and index == 1
    ]
    seen: set[ir.Node] = set()
    while waiting:
        value = waiting.pop()
        if value.is_graph_output():
            return False
        for node, _ in value.uses():
            if node in seen or node.name == KEPT:
                continue
            seen.add(node)
            if not _takes_any_rank(node):
                return False
            waiting += node.outputs[:1] if node.op_type == "GroupQueryAttention" else node.outputs
    return True


def _takes_any_rank(node: ir.Node) -> bool:
    if node.op_type == "GroupQueryAttention":
        readers = [reader for reader, _ in node.outputs[0].uses()]
        return node.inputs[1] is None and bool(readers) and all(map(multiplies_weight, readers))
    if node.op_type == "MatMul":
        return multiplies_weight(node)
    if node.op_type in _LAST_AXIS:
        return node.attributes.get_int("axis", -1) == -1
    return node.op_type in ELEMENTWISE or node.op_type in ACTIVATIONS


def _unflatten_input(graph: ir.Graph, node: ir.Node, shape: ir.Value) -> None:
    value = node.inputs[0]
    assert value is not None
    unflattened = name_outputs(ir.node("Reshape", [value, shape], name=f"{value.name}/unflattened"))
    graph.insert_before(node, [unflattened])
    node.replace_input_with(0, unflattened.outputs[0])


def _flatten_output(graph: ir.Graph, node: ir.Node) -> None:
    out = node.outputs[0]
    readers = list(out.uses())
    weight = readers[0].node.inputs[1]
    assert weight is not None
    assert weight.shape is not None
    width = int(weight.shape[0])  # type: ignore[arg-type]
    shape = constant(f"{out.name}/flat_shape", [-1, width])
    flat = name_outputs(ir.node("Reshape", [out, shape.outputs[0]], name=f"{out.name}/flat"))
    graph.insert_after(node, [shape, flat])
    for reader, index in readers:
        reader.replace_input_with(index, flat.outputs[0])
