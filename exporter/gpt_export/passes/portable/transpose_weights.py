"""Stores linear weights as they are multiplied: (in, out) instead of torch's (out, in)."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from gpt_export.weights.layout import layout_of, set_layout


class TransposeWeights(InPlacePass):
    """Takes `Transpose(weight)` out of the graph where nothing else reads the weight, and declares its new layout.

    onnxruntime would fold the Transpose when it loads the file, which keeps both copies in memory and costs time.
    """

    def call(self, model: ir.Model) -> PassResult:
        modified = False
        for weight in list(model.graph.inputs):
            layout = layout_of(weight)
            readers = [node for node, _ in weight.uses()]
            if layout is None or not readers or not all(swaps_two_axes(node) for node in readers):
                continue
            rows, columns = weight.shape  # type: ignore[misc]
            weight.shape = ir.Shape([columns, rows])
            set_layout(weight, layout.swapped())
            for node in readers:
                node.outputs[0].replace_all_uses_with(weight)
                model.graph.remove(node, safe=True)
            modified = True
        return PassResult(model, modified=modified)


def swaps_two_axes(node: ir.Node) -> bool:
    """Whether `node` transposes a matrix for its readers alone."""
    if node.op_type != "Transpose" or node.domain or node.outputs[0].is_graph_output():
        return False
    return node.attributes.get_ints("perm") == (1, 0)
