"""What applications need to run an artifact: numpy and onnxruntime only, no torch."""

from gpt_export.runtime.session import Session

__all__ = ["Session"]
