"""Whether a graph is a function of its inputs at all, of those alone that a caller must feed."""

from __future__ import annotations

from onnx import numpy_helper

from gpt_export.artifact.onnx_model import OnnxModel
from gpt_export.linting.finding import Severity
from gpt_export.linting.rules.training import training
from gpt_export.linting.settings import LintSettings
from gpt_export.runtime.signature import NUM_LOGITS_TO_KEEP


def random_nodes(model: OnnxModel) -> tuple[str, ...]:
    """What in the file draws random numbers or behaves as in training, in words; empty for a graph that may be judged.

    Outputs alone do not show it: onnxruntime takes a Dropout out of the graph whatever its mode, other runtimes do not.
    """
    found = training(model, LintSettings())
    return tuple(finding.message for finding in found if finding.severity is Severity.ERROR)


def wrong_defaults(model: OnnxModel) -> tuple[str, ...]:
    """What is wrong with the inputs that nobody has to feed, in words. Our own session feeds them; others do not."""
    return tuple(
        f"{model.path.name}: {tensor.name} is {found} unless it is fed, not 0, so that logits are left out unasked"
        for tensor in model.graph.initializer
        if tensor.name == NUM_LOGITS_TO_KEEP and (found := int(numpy_helper.to_array(tensor))) != 0
    )
