"""The named failures and their exit codes. Light: imports neither torch nor onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from gpt_export_models.errors import CheckpointError, ConfigError, GptExportError, ScratchError, TextError

__all__ = [
    "ArtifactError",
    "CheckpointError",
    "ConfigError",
    "ContextError",
    "EngineError",
    "GptExportError",
    "GraphError",
    "InputError",
    "OutputError",
    "ParityError",
    "RuntimeVersionError",
    "ScratchError",
    "ScriptError",
    "ServeError",
    "SourceError",
    "TextError",
]


class SourceError(GptExportError, ValueError):
    """A SOURCE that names nothing known, or does not give a module that can be exported."""

    exit_code = 2


class ScriptError(GptExportError):
    """A module that TorchScript cannot compile."""


class GraphError(GptExportError):
    """A scripted module that does not become a usable ONNX graph."""


class ArtifactError(GptExportError):
    """An artifact that is missing, damaged, edited, or of a newer format."""


class OutputError(GptExportError):
    """An output folder that may not or cannot be written."""


class RuntimeVersionError(GptExportError):
    """An installed onnxruntime older than the artifact needs."""


class InputError(GptExportError, ValueError):
    """Ids that the model cannot take: wrong rank or dtype, empty, too long, or outside the vocabulary."""

    exit_code = 2


class ContextError(GptExportError):
    """A generation that has filled the model's context; `continuations` is what it gave before, in JSON values."""

    def __init__(self, message: str, continuations: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.continuations = continuations

    def details(self) -> dict[str, Any]:
        """The continuations, for `--json`."""
        return {"continuations": list(self.continuations)}


class ServeError(GptExportError):
    """A page that cannot be served: a port that is taken, or a package of the page that is not installed."""


class EngineError(GptExportError):
    """Workers that cannot be had: processes that die at their start, or a Ray cluster that does not answer."""


class Recorded(Protocol):
    """A value that an error carries and that can be written down; what its class is, the reader of the error knows."""

    def to_dict(self) -> dict[str, Any]:
        """The value in JSON values."""


class ParityError(GptExportError):
    """Outputs or weights that are not those of the reference; `report` says which and by how much.

    `report` is a `gpt_export.gate.report.ParityReport`. `manifest` is the `gpt_export.artifact.manifest.Manifest` of
    the files that were compared, where they are an artifact's; they need not have been published.
    """

    exit_code = 3

    def __init__(self, message: str, report: Recorded | None = None, manifest: Recorded | None = None) -> None:
        super().__init__(message)
        self.report = report
        self.manifest = manifest

    def details(self) -> dict[str, Any]:
        """The parity report as JSON values, for `--json`."""
        return {} if self.report is None else {"parity": self.report.to_dict()}
