"""Types and shapes that the graph should state."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import TensorProto

from gpt_export.artifact.onnx_model import OnnxModel
from gpt_export.linting.finding import Finding, Severity, tensor
from gpt_export.linting.registry import rule
from gpt_export.linting.settings import LintSettings

NO_TYPE = rule(
    "GX104",
    Severity.ERROR,
    "an input or output does not state its element type",
    "run onnx.shape_inference.infer_shapes, or state the type when exporting",
)
NO_SHAPE = rule(
    "GX105",
    Severity.WARNING,
    "an input or output does not state its shape, so that callers cannot allocate for it",
    "run onnx.shape_inference.infer_shapes, or state the dims when exporting",
)
UNNAMED_DIM = rule(
    "GX106",
    Severity.WARNING,
    "a dynamic dim has no name, so that nobody can tell it from another",
    "name it: batch_size, sequence_length, past_sequence_length",
)


def shapes(model: OnnxModel, _settings: LintSettings) -> Iterator[Finding]:
    """Inputs and outputs whose type, shape or dims are left open."""
    for value in (*model.inputs, *model.outputs):
        where = tensor(value.name)
        if value.dtype == TensorProto.UNDEFINED:
            yield NO_TYPE.found(where, f"{value.name} has no tensor element type; every input and output needs one")
        elif value.dims is None:
            yield NO_SHAPE.found(where, f"{value.name} is {value}; a rank and dims are expected")
        elif None in value.dims:
            yield UNNAMED_DIM.found(where, f"{value.name} is {value}; dim {value.dims.index(None)} should have a name")
