"""Activations as (tokens, width) wherever an operator does not need to know the batch."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from gpt_export.passes.building import constant, graph_input, name_outputs
from gpt_export.passes.fused.last_logits import KEPT
from gpt_export.passes.quantized.tokens import FLAT
from gpt_export.runtime.signature import INPUT_IDS, POSITION_IDS


class FlattenTokens(InPlacePass):
    """Looks tokens up in one row, and gives batch and sequence back in front of attention and of the last slice.

    Quantising by token needs (tokens, width); without this every product would reshape on both sides.
    """

    def call(self, model: ir.Model) -> PassResult:
        graph = model.graph
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
