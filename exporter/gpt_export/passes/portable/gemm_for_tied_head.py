"""Multiplies by a weight that must stay as it is stored, because something else reads it too."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from gpt_export.passes.building import constant
from gpt_export.passes.portable.transpose_weights import swaps_two_axes
from gpt_export.weights.layout import layout_of


class GemmForTiedHead(InPlacePass):
    """Turns `MatMul(x, Transpose(weight))` into a Gemm with `transB` where the weight has other readers.

    onnxruntime would fold the Transpose when it loads the file and so store a tied embedding twice. Gemm takes two
    axes, so x is flattened to rows and the result unflattened.
    """

    def call(self, model: ir.Model) -> PassResult:
        modified = False
        for transpose in list(model.graph):
            weight = transpose.inputs[0] if transpose.op_type == "Transpose" else None
            if weight is None or layout_of(weight) is None or len(weight.uses()) < 2 or not swaps_two_axes(transpose):
                continue
            readers = [node for node, index in transpose.outputs[0].uses() if node.op_type == "MatMul" and index == 1]
            for matmul in readers:
                _rewrite(model.graph, matmul, weight)
                modified = True
        return PassResult(model, modified=modified)


def _rewrite(graph: ir.Graph, matmul: ir.Node, weight: ir.Value) -> None:
    x, out = matmul.inputs[0], matmul.outputs[0]
    assert weight.shape is not None
    columns, width = weight.shape.numpy()
    rows_shape = constant(f"{matmul.name}/rows_shape", [-1, width])
    columns_dim = constant(f"{matmul.name}/columns", [columns])
    rows = ir.node("Reshape", [x, rows_shape.outputs[0]], name=f"{matmul.name}/rows")
    gemm = ir.node("Gemm", [rows.outputs[0], weight], attributes={"transB": 1}, name=f"{matmul.name}/Gemm")
    leading = ir.node("Shape", [x], attributes={"end": -1}, name=f"{matmul.name}/leading_dims")
    shape = ir.node(
        "Concat", [leading.outputs[0], columns_dim.outputs[0]], attributes={"axis": 0}, name=f"{matmul.name}/shape"
    )
    unflattened = ir.node("Reshape", [gemm.outputs[0], shape.outputs[0]], name=f"{matmul.name}/unflattened")
    nodes = [rows_shape, columns_dim, rows, gemm, leading, shape, unflattened]
    for node in nodes:
        node.outputs[0].name = f"{node.name}_output_0"
    graph.insert_before(matmul, nodes)
    ir.convenience.replace_nodes_and_values(graph, matmul, [matmul], [], [out], [unflattened.outputs[0]])
