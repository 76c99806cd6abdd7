"""Layouts, mapped pages, streaming, `.onnx` files, quantisation."""
