"""Whether a graph is a function of its inputs at all."""

from __future__ import annotations

from pathlib import Path

from exporter.lint.finding import Severity
from exporter.lint.model import read_model
from exporter.lint.rules.training import training
from exporter.lint.settings import LintSettings


def random_nodes(path: Path) -> tuple[str, ...]:
    """What in the file draws random numbers or behaves as in training, in words; empty for a graph that may be judged.

    Outputs alone do not show it: onnxruntime takes a Dropout out of the graph whatever its mode, other runtimes do not.

    Raises:
        ArtifactError: the file is not an ONNX model.
    """
    found = training(read_model(path), LintSettings())
    return tuple(finding.message for finding in found if finding.severity is Severity.ERROR)
