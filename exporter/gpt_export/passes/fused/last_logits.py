"""Logits of the last positions alone, for callers that ask for them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from gpt_export.errors import GraphError
from gpt_export.passes.building import constant, name_outputs
from gpt_export.runtime.signature import LOGITS, NUM_LOGITS_TO_KEEP

_NORMS = ("LayerNormalization", "SkipLayerNormalization")
KEPT = "/last/kept"
"""The name of the node that keeps the last positions."""
_EVERYTHING = np.iinfo(np.int64).max


class KeepLastLogits(InPlacePass):
    """Adds `num_logits_to_keep`, an overridable initializer: nobody must feed it, and 0 keeps every position.

    What the final norm gives is sliced from `-num_logits_to_keep` on, which for 0 is the beginning.
    """

    def call(self, model: ir.Model) -> PassResult:
        graph = model.graph
        norm = _norm_above(graph)
        keep = ir.Value(
            name=NUM_LOGITS_TO_KEEP,
            type=ir.TensorType(ir.DataType.INT64),
            shape=ir.Shape([]),
            const_value=ir.tensor(np.array(0, np.int64), name=NUM_LOGITS_TO_KEEP),
        )
        whole = norm.outputs[0]
        readers = list(whole.uses())
        one = constant("/last/one_axis", [1])
        end = constant("/last/end", [_EVERYTHING])
        start = name_outputs(ir.node("Neg", [keep], name="/last/start"))
        start_1d = name_outputs(ir.node("Reshape", [start.outputs[0], one.outputs[0]], name="/last/start_1d"))
        inputs = [whole, start_1d.outputs[0], end.outputs[0], one.outputs[0]]
        kept = name_outputs(ir.node("Slice", inputs, name=KEPT))
        graph.insert_after(norm, [one, end, start, start_1d, kept])
        for node, index in readers:
            node.replace_input_with(index, kept.outputs[0])
        graph.inputs.append(keep)
        graph.register_initializer(keep)
        return PassResult(model, modified=True)


def _norm_above(graph: ir.Graph) -> ir.Node:
    """The last norm that the logits come from."""
    logits = next(value for value in graph.outputs if value.name == LOGITS)
    value: ir.Value | None = logits
    while value is not None and (node := value.producer()) is not None:
        if node.op_type in _NORMS:
            return node
        value = node.inputs[0]
    raise GraphError("the logits do not come from a norm, so none can be left out; please report this")
