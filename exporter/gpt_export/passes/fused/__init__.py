"""Passes to onnxruntime's own operators."""
