"""GPT to TorchScript and ONNX, published only when onnxruntime reproduces the eager logits.

`export` is loaded on first use: `exporter.runtime` must import where torch is not installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exporter.version import __version__

if TYPE_CHECKING:
    from exporter.api import export

__all__ = ["__version__", "export"]


def __getattr__(name: str) -> Any:
    if name == "export":
        from exporter.api import export

        return export
    raise AttributeError(f"module 'exporter' has no attribute {name!r}")
