"""Casts to the type that a value has already."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from gpt_export.passes.fused.dataflow import ELEMENTWISE

_KEEP_THE_TYPE = (ELEMENTWISE - {"Cast"}) | {
    *("MatMul", "Gemm", "Gather", "Reshape", "Transpose", "Unsqueeze", "Squeeze", "Expand", "Slice", "Concat", "Split"),
    *("Softmax", "LayerNormalization", "ReduceMean", "ReduceSum"),
}
"""What comes out of them has the type of their first input."""


class DropCasts(InPlacePass):
    """Lets the readers of a Cast that changes nothing read what was cast."""

    def call(self, model: ir.Model) -> PassResult:
        types: dict[ir.Value, ir.DataType | None] = {value: value.dtype for value in model.graph.inputs}
        modified = False
        for node in list(model.graph):
            first = node.inputs[0] if node.inputs else None
            of_first = types.get(first, first.dtype) if first is not None else None
            to = node.attributes.get_int("to", 0) if node.op_type == "Cast" else None
            for out in node.outputs:
                types[out] = ir.DataType(to) if to else out.dtype or (of_first if _keeps(node) else None)
            if to and first is not None and of_first == to and not node.outputs[0].is_graph_output():
                node.outputs[0].replace_all_uses_with(first)
                model.graph.remove(node, safe=True)
                modified = True
        return PassResult(model, modified=modified)


def _keeps(node: ir.Node) -> bool:
    return not node.domain and node.op_type in _KEEP_THE_TYPE
