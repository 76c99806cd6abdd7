"""What onnx itself says of the graph."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import defs

from gpt_export.artifact.onnx_model import OnnxModel
from gpt_export.artifact.validity import complaint
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
    if reason := complaint(model.proto):
        yield INVALID.found(FILE, f"onnx.checker says: {reason[:300]}")
