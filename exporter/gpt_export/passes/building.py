"""Small pieces that passes build graphs from."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from gpt_export.weights.layout import layout_of

CONTRIB = "com.microsoft"
"""The domain of onnxruntime's own operators."""


def constant(name: str, value: Any, dtype: Any = np.int64) -> ir.Node:
    """A Constant node called `name`; its output is named after it."""
    tensor = ir.tensor(np.array(value, dtype))
    node = ir.node("Constant", [], attributes={"value": tensor}, name=name)
    node.outputs[0].shape = ir.Shape(tensor.shape.numpy())
    node.outputs[0].type = ir.TensorType(tensor.dtype)
    return name_outputs(node)


def name_outputs(node: ir.Node) -> ir.Node:
    """`node`, its outputs named after it as the exporter names them."""
    for i, value in enumerate(node.outputs):
        value.name = f"{node.name}_output_{i}"
    return node


def graph_input(graph: ir.Graph, name: str) -> ir.Value:
    """The input called `name`."""
    return next(value for value in graph.inputs if value.name == name)


def is_bias(value: ir.Value | None) -> bool:
    """Whether `value` is a weight of one axis."""
    return value is not None and layout_of(value) is not None and value.shape is not None and len(value.shape) == 1
