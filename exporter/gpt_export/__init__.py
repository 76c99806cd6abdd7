"""GPT to TorchScript and ONNX, published only when onnxruntime reproduces the eager logits.

`export` is loaded on first use: `gpt_export.runtime.session` must import where torch is not installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpt_export.version import __version__

if TYPE_CHECKING:
    from gpt_export.api import export

__all__ = ["__version__", "export"]


def __getattr__(name: str) -> Any:
    if name == "export":
        from gpt_export.api import export

        return export
    raise AttributeError(f"module 'exporter' has no attribute {name!r}")
