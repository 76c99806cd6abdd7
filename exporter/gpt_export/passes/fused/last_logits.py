"""Logits of the last positions alone, for callers that ask for them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from gpt_export.passes.building import constant, name_outputs
from gpt_export.passes.fused.dataflow import ELEMENTWISE, Dataflow, multiplies_weight
from gpt_export.passes.fused.norms import RMS_NORM
from gpt_export.runtime.signature import LOGITS, NUM_LOGITS_TO_KEEP
from gpt_export.weights.layout import layout_of

_NORMS = frozenset({"LayerNormalization", "SkipLayerNormalization", RMS_NORM, "SkipSimplifiedLayerNormalization"})
KEPT = "/last/kept"
"""The name of the node that keeps the last positions."""
_EVERYTHING = np.iinfo(np.int64).max
_AXES = 3
"""Batch, positions and vocabulary; logits of the last position alone have two, and scores of classes are no logits."""


class KeepLastLogits(InPlacePass):
    """Adds `num_logits_to_keep`, an overridable initializer: nobody must feed it, and 0 keeps every position.

    What the final norm gives is sliced from `-num_logits_to_keep` on, which for 0 is the beginning. Where there is no
    norm, or what lies between needs all positions, it is the earliest value behind which each is computed alone.
    """

    def call(self, model: ir.Model) -> PassResult:
        graph = model.graph
        logits = next((value for value in graph.outputs if value.name == LOGITS), None)
        of_every_position = logits is not None and logits.shape is not None and len(logits.shape) == _AXES
        if not of_every_position or any(value.name == NUM_LOGITS_TO_KEEP for value in graph.inputs):
            return PassResult(model, modified=False)
        whole = _cut(graph)
        keep = ir.Value(
            name=NUM_LOGITS_TO_KEEP,
            type=ir.TensorType(ir.DataType.INT64),
            shape=ir.Shape([]),
            const_value=ir.tensor(np.array(0, np.int64), name=NUM_LOGITS_TO_KEEP),
        )
        readers = list(whole.uses())
        one = constant("/last/one_axis", [1])
        end = constant("/last/end", [_EVERYTHING])
        start = name_outputs(ir.node("Neg", [keep], name="/last/start"))
        start_1d = name_outputs(ir.node("Reshape", [start.outputs[0], one.outputs[0]], name="/last/start_1d"))
        inputs = [whole, start_1d.outputs[0], end.outputs[0], one.outputs[0]]
        kept = name_outputs(ir.node("Slice", inputs, name=KEPT))
        before = whole.producer()
        assert before is not None
        graph.insert_after(before, [one, end, start, start_1d, kept])
        for node, index in readers:
            node.replace_input_with(index, kept.outputs[0])
        if whole.is_graph_output():
            _put_out(graph, whole, kept.outputs[0])
        graph.inputs.append(keep)
        graph.register_initializer(keep)
        return PassResult(model, modified=True)


def _cut(graph: ir.Graph) -> ir.Value:
    """What is sliced: (batch, new, ...), all that the logits are computed from, each position for itself."""
    flow = Dataflow(graph)
    value = found = next(value for value in graph.outputs if value.name == LOGITS)
    while (node := value.producer()) is not None:
        if node.op_type in _NORMS:
            return value
        inputs = flow.data_inputs(node)
        if len(inputs) != 1 or not _by_position(node):
            break
        value = inputs[0]
        if node.op_type != "Reshape" and not _flat(value):
            found = value
    return found


def _by_position(node: ir.Node) -> bool:
    """Whether `node` computes each position from itself, and would if there were fewer."""
    if node.op_type in ("MatMul", "Gemm"):
        return multiplies_weight(node)
    if node.op_type == "Reshape":
        return node.inputs[1] is not None and not _reads_inputs(node.inputs[1], node.inputs[0])
    return node.op_type in ELEMENTWISE


def _flat(value: ir.Value) -> bool:
    """Whether batch and positions are one axis."""
    node = value.producer()
    return node is not None and node.op_type in ("Reshape", "Gemm")


def _reads_inputs(shape: ir.Value, data: ir.Value | None) -> bool:
    """Whether a shape comes from the sizes of the graph's inputs, and not from constants and what is reshaped."""
    near = {data}
    while data is not None and (node := data.producer()) is not None and node.op_type in ("Gemm", "Reshape", "MatMul"):
        data = node.inputs[0]
        near.add(data)
    stack, seen = [shape], set[ir.Value]()
    while stack:
        value = stack.pop()
        if value in near or value in seen:
            continue
        seen.add(value)
        node = value.producer()
        if node is None and layout_of(value) is None and ir.convenience.get_const_tensor(value) is None:
            return True
        stack += [each for each in (node.inputs if node is not None else ()) if each is not None]
    return False


def _put_out(graph: ir.Graph, whole: ir.Value, kept: ir.Value) -> None:
    kept.type, kept.shape = whole.type, whole.shape
    graph.outputs[list(graph.outputs).index(whole)] = kept
    whole.name, kept.name = f"{whole.name}/whole", whole.name
