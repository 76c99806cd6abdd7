"""Weights, products and the cache in float16; sums along the network, norms and logits in float32."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from gpt_export.passes.building import is_bias, name_outputs
from gpt_export.weights.layout import layout_of

_HALF = ("MatMul", "Gemm", "GroupQueryAttention", "FastGelu", "BiasGelu", "Gelu")
"""Operators that compute in float16. What they give is finite wherever the layer's own output is below 65,504; the
residual stream, which grows from layer to layer, and the norms stay float32."""
_KEPT_INPUTS = {"GroupQueryAttention": frozenset({5, 6})}
"""Inputs that are integers."""


class HalvePrecision(InPlacePass):
    """Casts what goes into the products, attention and activations to float16, and what leaves them back to float32.

    Past and present become float16; logits stay float32. Casts that only undo one another are left out.
    """

    def call(self, model: ir.Model) -> PassResult:
        graph = model.graph
        halves: dict[ir.Value, ir.Value] = {}
        for value in (*graph.inputs, *graph.outputs):
            if str(value.name).startswith(("past_key_values.", "present.")):
                value.type = ir.TensorType(ir.DataType.FLOAT16)
        for node in list(graph):
            if node.op_type in _HALF or (node.op_type == "Add" and any(is_bias(value) for value in node.inputs)):
                self._halve(graph, node, halves)
            elif node.op_type == "Gather" and (table := node.inputs[0]) is not None and layout_of(table):
                table.type = ir.TensorType(ir.DataType.FLOAT16)
                _widened(graph, node)  # what comes out is widened, not the table
        return PassResult(model, modified=True)

    def _halve(self, graph: ir.Graph, node: ir.Node, halves: dict[ir.Value, ir.Value]) -> None:
        kept = _KEPT_INPUTS.get(node.op_type, frozenset())
        for index, value in enumerate(node.inputs):
            if value is None or index in kept or value.dtype == ir.DataType.FLOAT16:
                continue
            if layout_of(value):
                value.type = ir.TensorType(ir.DataType.FLOAT16)
                continue
            if value not in halves:
                cast = ir.node("Cast", [value], attributes={"to": ir.DataType.FLOAT16}, name=f"{value.name}/half")
                name_outputs(cast)
                cast.outputs[0].type = ir.TensorType(ir.DataType.FLOAT16)
                graph.insert_before(node, [cast])
                halves[value] = cast.outputs[0]
            node.replace_input_with(index, halves[value])
        halves[_widened(graph, node)] = node.outputs[0]


def _widened(graph: ir.Graph, node: ir.Node) -> ir.Value:
    """What a node in float16 gives, back in float32 for all who read it; a graph output keeps its name and type."""
    out = node.outputs[0]
    readers = list(out.uses())
    wide = ir.Value(name=f"{out.name}/wide", type=ir.TensorType(ir.DataType.FLOAT), shape=out.shape)
    cast = ir.node("Cast", [out], attributes={"to": ir.DataType.FLOAT}, outputs=[wide], name=f"{out.name}/widen")
    graph.insert_after(node, [cast])
    for reader, index in readers:
        reader.replace_input_with(index, wide)
    if out.is_graph_output():
        wide.name, out.name = out.name, f"{out.name}/half"
        graph.outputs[list(graph.outputs).index(out)] = wide
    out.type = ir.TensorType(ir.DataType.FLOAT16)
    return wide
