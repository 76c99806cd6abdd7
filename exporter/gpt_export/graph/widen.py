"""16-bit floats of a graph become float32, which is what its weights are stored in and a CPU computes in."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

_HALVES = frozenset({ir.DataType.BFLOAT16, ir.DataType.FLOAT16})

_TYPES = ("to", "dtype")
"""Attributes whose number is an element type."""


def widen_halves(graph: ir.Graph) -> None:
    """Gives every value of `graph` and of the graphs in it that is a 16-bit float the type float32, in place.

    That holds for weights, which are then stored wide, exactly; for constants; and for what a cast makes.
    """
    for value in [*graph.inputs, *graph.initializers.values()]:
        _widen_value(value)
    for node in graph:
        for output in node.outputs:
            _widen_value(output)
        for name, attribute in list(node.attributes.items()):
            if attribute.type == ir.AttributeType.GRAPH:
                widen_halves(attribute.as_graph())
            elif attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in _HALVES:
                wide = ir.tensor(np.asarray(attribute.as_tensor().numpy(), np.float32), name=attribute.as_tensor().name)
                node.attributes[name] = ir.AttrTensor(name, wide)
            elif name in _TYPES and attribute.type == ir.AttributeType.INT and attribute.as_int() in _HALVES:
                node.attributes[name] = ir.AttrInt64(name, ir.DataType.FLOAT)


def _widen_value(value: ir.Value) -> None:
    if value.dtype in _HALVES:
        value.dtype = ir.DataType.FLOAT
        if value.const_value is not None:
            value.const_value = ir.tensor(np.asarray(value.const_value.numpy(), np.float32), name=value.name)
