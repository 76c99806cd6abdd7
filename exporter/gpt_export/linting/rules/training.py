"""What belongs to training and was left in the graph."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto, numpy_helper

from gpt_export.artifact.onnx_model import OnnxModel, attribute, node_name
from gpt_export.linting.finding import Finding, Severity, node
from gpt_export.linting.registry import rule
from gpt_export.linting.settings import LintSettings

DROPOUT = rule(
    "GX131",
    Severity.ERROR,
    "a Dropout is on: logits differ from call to call",
    "call model.eval() before the export, and export with training=TrainingMode.EVAL",
)
DROPOUT_UNKNOWN = rule(
    "GX132",
    Severity.WARNING,
    "whether a Dropout is on is computed when the graph runs",
    "export in eval mode, so that it is a constant or gone",
)
BATCH_NORM = rule(
    "GX133",
    Severity.ERROR,
    "a BatchNormalization takes its statistics from the batch: rows influence each other",
    "call model.eval() before the export",
)
RANDOM = rule(
    "GX134",
    Severity.ERROR,
    "an operator draws random numbers: outputs differ from call to call",
    "take the sampling or noise out of forward; sample from the logits outside the graph",
)
TRAINING_OPERATOR = rule(
    "GX135",
    Severity.ERROR,
    "an operator of the training domain, which inference builds of onnxruntime do not have",
    "export the model for inference",
)
_RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
_TRAINING_DOMAIN = "ai.onnx.preview.training"
_TRAINING_MODE = 2
"""The index of Dropout's third input (opset 12)."""


def training(model: OnnxModel, _settings: LintSettings) -> Iterator[Finding]:
    """Nodes that behave as in training."""
    for (domain, operator), nodes in model.operators.items():
        for each in nodes:
            where, name = node(node_name(each)), node_name(each)
            if not domain and operator == "Dropout":
                yield from _dropout(each, model)
            elif not domain and operator == "BatchNormalization":
                mode = attribute(each, "training_mode")
                if mode is not None and mode.i:
                    yield BATCH_NORM.found(where, f"{name} has training_mode 1; 0 is allowed")
            elif not domain and operator in _RANDOM:
                yield RANDOM.found(where, f"{name} is a {operator}; a GPT's graph may hold no random operator")
            elif domain == _TRAINING_DOMAIN:
                yield TRAINING_OPERATOR.found(where, f"{name} is {domain}.{operator}; no operator of it is allowed")


def _dropout(each: NodeProto, model: OnnxModel) -> Iterator[Finding]:
    mode = each.input[_TRAINING_MODE] if len(each.input) > _TRAINING_MODE else ""
    if not mode:
        return
    value = model.constants.get(mode) or model.initializers.get(mode)
    overridable = any(mode == info.name for info in model.graph.input)
    name = node_name(each)
    if value is None or overridable:
        yield DROPOUT_UNKNOWN.found(
            node(name), f"{name} reads its training_mode from {mode}; a constant false is allowed"
        )
    elif bool(np.any(numpy_helper.to_array(value))):
        yield DROPOUT.found(node(name), f"{name} has training_mode true; false is allowed")
