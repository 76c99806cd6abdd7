"""What onnx itself says of the graph."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import ModelProto, defs
from onnx.helper import make_tensor_value_info

from gpt_export.artifact.onnx_model import OnnxModel
from gpt_export.linting.finding import FILE, Finding, Severity
from gpt_export.linting.registry import rule
from gpt_export.linting.settings import LintSettings

INVALID = rule(
    "GX001",
    Severity.ERROR,
    "onnx.checker refuses the graph",
    "export again; report it to the exporter that wrote it",
)


def validity(model: OnnxModel, _settings: LintSettings) -> Iterator[Finding]:
    """The checker's first complaint. It sees the weights as inputs, so that it needs none of their bytes."""
    opset = model.opset()
    if opset is None or opset > defs.onnx_opset_version() or model.proto.ir_version > onnx.IR_VERSION:
        return
    try:
        onnx.checker.check_model(_without_weights(model))
    except onnx.checker.ValidationError as error:
        reason = " ".join(str(error).split())
        yield INVALID.found(FILE, f"onnx.checker says: {reason[:300]}")


def _without_weights(model: OnnxModel) -> ModelProto:
    """The model with the initializers of the main graph declared as inputs."""
    proto, graph = model.proto, model.graph
    bare = ModelProto(ir_version=proto.ir_version)
    bare.opset_import.extend(proto.opset_import)
    bare.functions.extend(proto.functions)
    bare.graph.name = graph.name
    bare.graph.node.extend(graph.node)
    bare.graph.input.extend(graph.input)
    bare.graph.output.extend(graph.output)
    declared = {value.name for value in graph.input}
    bare.graph.input.extend(
        make_tensor_value_info(value.name, value.data_type, list(value.dims))
        for value in graph.initializer
        if value.name not in declared
    )
    return bare
