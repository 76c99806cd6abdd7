"""Shapes that a graph computes although they are known, made constants.

torch names every size of every value that it gives: sizes of one name are one size. That tells what a Reshape does
without its computed shape.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


def settle_shapes(graph: ir.Graph) -> None:
    """Gives each Reshape whose axes are known a constant shape, and takes out what changes no shape.

    0 in such a shape is the input's own size at that place, -1 the one size that follows from the others. The nodes
    that computed the shape are left without readers.
    """
    for node in list(graph):
        if node.op_type == "Reshape" and not node.domain:
            _settle_reshape(graph, node)
        elif node.op_type == "Expand" and not node.domain and _same(node.inputs[0], node.outputs[0]):
            _take_out(node, node.inputs[0])


def _settle_reshape(graph: ir.Graph, node: ir.Node) -> None:
    data, shape = node.inputs
    if data is None or shape is None:
        return
    if _is_column(data) and _known(shape) == [-1]:
        _take_out(node, _without_squeeze(data))
        return
    if _same(data, node.outputs[0]):
        _take_out(node, data)
        return
    dims = _known(shape)
    if dims is None:
        dims = _described(data, node.outputs[0])
        if dims is None:
            return
        made = ir.node(
            "Constant", [], attributes={"value": ir.tensor(np.array(dims, np.int64))}, name=f"{node.name}/shape"
        )
        made.outputs[0].name = f"{node.name}/shape_output_0"
        made.outputs[0].shape, made.outputs[0].type = ir.Shape([len(dims)]), ir.TensorType(ir.DataType.INT64)
        graph.insert_before(node, made)
        node.replace_input_with(1, made.outputs[0])
        node.attributes.pop("allowzero", None)
    elif 0 not in dims:
        node.attributes.pop("allowzero", None)


def _described(data: ir.Value, output: ir.Value) -> list[int] | None:
    """The output's shape in a Reshape's words, None where two sizes or more are not known."""
    if data.shape is None or output.shape is None:
        return None
    before = [_size(dim) for dim in data.shape]
    dims = []
    for axis, dim in enumerate(output.shape):
        size = _size(dim)
        own = size is not None and axis < len(before) and before[axis] == size
        dims.append(size if isinstance(size, int) and size else 0 if own else -1)
    if dims.count(-1) > 1 or (-1 in dims and 0 in (size for size in before if isinstance(size, int))):
        return None
    return dims


def _size(dim: int | ir.SymbolicDim) -> int | str | None:
    return dim if isinstance(dim, int) else dim.value


def _same(one: ir.Value | None, other: ir.Value) -> bool:
    """Whether both have the same sizes, all of them known by number or name."""
    if one is None or one.shape is None or other.shape is None:
        return False
    sizes = [_size(dim) for dim in one.shape]
    return None not in sizes and sizes == [_size(dim) for dim in other.shape]


def _is_column(value: ir.Value) -> bool:
    """Whether `value` is one size, as a scalar or an axis of one element."""
    node = value.producer()
    if node is None or node.op_type not in ("Shape", "Squeeze"):
        return False
    source = node if node.op_type == "Shape" else node.inputs[0].producer() if node.inputs[0] else None
    if source is None or source.op_type != "Shape" or "end" not in source.attributes:
        return False
    return source.attributes.get_int("end", 0) - source.attributes.get_int("start", 0) == 1


def _without_squeeze(value: ir.Value) -> ir.Value | None:
    node = value.producer()
    return node.inputs[0] if node is not None and node.op_type == "Squeeze" else value


def _known(shape: ir.Value) -> list[int] | None:
    tensor = ir.convenience.get_const_tensor(shape)
    return None if tensor is None else [int(dim) for dim in np.ravel(tensor.numpy())]


def _take_out(node: ir.Node, value: ir.Value | None) -> None:
    """Lets the readers of `node` read `value`; an output of the graph is left."""
    if value is not None and not node.outputs[0].is_graph_output():
        node.outputs[0].replace_all_uses_with(value)
