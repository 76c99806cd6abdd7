"""Whether a graph is valid ONNX."""

from __future__ import annotations

import onnx
from onnx import ModelProto
from onnx.helper import make_tensor_value_info

_UNKNOWN_TO_ONNX = frozenset({"SimplifiedLayerNormalization"})
"""Operators that onnxruntime registers in the standard domain, where the checker knows only the standard's own."""


def complaint(proto: ModelProto) -> str | None:
    """What onnx.checker has to say first about a graph without its weights; None where it has nothing to say."""
    try:
        onnx.checker.check_model(_without_weights(proto))
    except onnx.checker.ValidationError as error:
        return " ".join(str(error).split())
    return None


def _without_weights(proto: ModelProto) -> ModelProto:
    """The model with the initializers of the main graph declared as inputs."""
    graph = proto.graph
    bare = ModelProto(ir_version=proto.ir_version)
    bare.opset_import.extend(proto.opset_import)
    bare.functions.extend(proto.functions)
    bare.graph.name = graph.name
    bare.graph.node.extend(graph.node)
    for node in bare.graph.node:
        if node.op_type in _UNKNOWN_TO_ONNX and not node.domain:
            node.domain = "com.microsoft"
    bare.graph.input.extend(graph.input)
    bare.graph.output.extend(graph.output)
    declared = {value.name for value in graph.input}
    bare.graph.input.extend(
        make_tensor_value_info(value.name, value.data_type, list(value.dims))
        for value in graph.initializer
        if value.name not in declared
    )
    return bare
