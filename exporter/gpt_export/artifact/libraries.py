"""The versions of what decides an artifact's bytes."""

from __future__ import annotations

import platform
from importlib.metadata import version

from gpt_export.version import __version__

_DISTRIBUTIONS = ("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript", "tiktoken", "torch")


def library_versions() -> dict[str, str]:
    """Distribution name to version, gpt-export and Python included."""
    versions = {name: version(name) for name in _DISTRIBUTIONS}
    return versions | {"gpt-export": __version__, "python": platform.python_version()}
