"""Replaces computed shapes of Reshape by constants."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult


class StaticReshapes(InPlacePass):
    """Gives `Reshape(x, Concat(dims))` a constant shape where each dim is a constant or x's own dim at that place.

    ONNX reads 0 in a shape as "as in the input", so no dim of x has to be known. The Shape, Gather and Concat nodes
    that computed it are left without readers, for `RemoveUnusedNodesPass`.
    """

    def call(self, model: ir.Model) -> PassResult:
        modified = False
        for node in list(model.graph):
            if node.op_type == "Reshape" and (dims := _static_dims(node)):
                name = f"{node.outputs[0].name}_shape"
                constant = ir.node(
                    "Constant",
                    [],
                    attributes={"value": ir.tensor(np.array(dims, np.int64))},
                    outputs=[ir.Value(name=name, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([len(dims)]))],
                    name=name,
                )
                model.graph.insert_before(node, constant)
                node.replace_input_with(1, constant.outputs[0])
                modified = True
        return PassResult(model, modified=modified)


def _static_dims(reshape: ir.Node) -> list[int] | None:
    """The dims of a computed shape as constants, None if one of them is neither a constant nor the input's own."""
    data, shape = reshape.inputs
    concat = shape.producer() if shape is not None else None
    if concat is None or concat.op_type != "Concat":
        return None
    dims = [_dim(value, data, axis) for axis, value in enumerate(concat.inputs)]
    return None if None in dims else [int(dim) for dim in dims if dim is not None]


def _dim(value: ir.Value | None, data: ir.Value | None, axis: int) -> int | None:
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "Unsqueeze":
        return None
    scalar = node.inputs[0]
    constant = ir.convenience.get_const_tensor(scalar) if scalar is not None else None
    if constant is not None:
        return int(constant.numpy())
    gather = scalar.producer() if scalar is not None else None
    if gather is None or gather.op_type != "Gather":
        return None
    source, index = gather.inputs
    shape = source.producer() if source is not None else None
    place = ir.convenience.get_const_tensor(index) if index is not None else None
    own = shape is not None and shape.op_type == "Shape" and shape.inputs[0] is data
    return 0 if own and place is not None and int(place.numpy()) == axis else None
