"""GPT to TorchScript and ONNX, published only when onnxruntime reproduces the eager logits.

    artifact = gpt_export.export(model, "artifacts/mine", context_length=256, vocab_size=50257)
    gpt_export.validate("artifacts/mine", model).passed
    gpt_export.lint("artifacts/mine").findings
    gpt_export.Session.open("artifacts/mine").logits([[15496, 11]])

What fails raises a `GptExportError` of a kind below. Every name is loaded on first use: to import this package takes
nothing but Python, to run an artifact numpy and onnxruntime, to lint one onnx, and torch to export and to compare.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gpt_export.version import __version__

if TYPE_CHECKING:
    from gpt_export.api import export, lint, validate
    from gpt_export.errors import (
        ArtifactError,
        CheckpointError,
        ConfigError,
        ContextError,
        EngineError,
        GptExportError,
        GraphError,
        InputError,
        OutputError,
        ParityError,
        RuntimeVersionError,
        ScratchError,
        ScriptError,
        ServeError,
        SourceError,
        TextError,
    )
    from gpt_export.pipeline.config import ExportConfig
    from gpt_export.runtime.session import Session

__all__ = [
    "ArtifactError",
    "CheckpointError",
    "ConfigError",
    "ContextError",
    "EngineError",
    "ExportConfig",
    "GptExportError",
    "GraphError",
    "InputError",
    "OutputError",
    "ParityError",
    "RuntimeVersionError",
    "ScratchError",
    "ScriptError",
    "ServeError",
    "Session",
    "SourceError",
    "TextError",
    "__version__",
    "export",
    "lint",
    "validate",
]

_HOMES = {
    "ExportConfig": "gpt_export.pipeline.config",
    "Session": "gpt_export.runtime.session",
    "export": "gpt_export.api",
    "lint": "gpt_export.api",
    "validate": "gpt_export.api",
}
"""Where the names are defined that are no errors."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "gpt_export.errors")), name)


def __dir__() -> list[str]:
    return sorted(__all__)
