"""Parts of a graph, run on numbers: what a part *is* is found by what it computes, however it is spelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import helper, numpy_helper
from torch import Tensor

from gpt_export.passes.building import CONTRIB
from gpt_export.weights.layout import layout_of
from gpt_export.weights.numbers import laid_out

Array = np.ndarray
_IR_VERSION = 10
_QUIET = 4
_LINEAR = {"MatMul": 1, "Gemm": 1}
_FILLED = 2**16
"""Weights of more numbers than this are not needed for the shapes of what is computed with them."""


class UnknownValueError(Exception):
    """A value cannot be computed: it needs a weight or an input that is not there, or does not run."""


class Evaluator:
    """Computes values of a graph from others that are given.

    Args:
        model: the graph; it may be rewritten between two calls.
        weights: the numbers of the weights by the names in their layouts.
    """

    def __init__(self, model: ir.Model, weights: Mapping[str, Tensor]) -> None:
        self._model = model
        self._weights = weights

    def __call__(self, targets: Sequence[ir.Value], given: Mapping[ir.Value, Array]) -> list[Array]:
        """The numbers of `targets`, computed from those of `given` and the weights alone.

        Raises:
            UnknownValueError: they depend on something else, or the part does not run.
        """
        wanted = [target for target in dict.fromkeys(targets) if target not in given]
        if not wanted:
            return [given[target] for target in targets]
        nodes, leaves = _cone(wanted, set(given))
        feeds = {str(leaf.name): given[leaf] if leaf in given else self._weight(leaf) for leaf in leaves}
        protos = [ir.serde.serialize_node(node) for node in nodes]
        found = dict(zip(wanted, _run(self._opset, protos, feeds, [str(value.name) for value in wanted]), strict=True))
        return [given[target] if target in given else found[target] for target in targets]

    def shapes(self, targets: Sequence[ir.Value], given: Mapping[ir.Value, Array]) -> dict[ir.Value, tuple[int, ...]]:
        """The shapes of `targets` where the graph's inputs are `given`.

        No weight is read: products with large weights are replaced by sums over what they reduce, and other weights by
        zeros, which leaves every shape as it is.
        """
        wanted = list(dict.fromkeys(target for target in targets if target not in given))
        if not wanted:
            return {target: tuple(given[target].shape) for target in targets}
        nodes, leaves = _cone(wanted, set(given))
        protos: list[onnx.NodeProto] = []
        replaced: set[ir.Value] = set()
        for node in nodes:
            weight = node.inputs[_LINEAR[node.op_type]] if node.op_type in _LINEAR else None
            if weight is not None and layout_of(weight) and not node.domain and _is_matrix(weight):
                protos += _columns_of_sums(node, weight)
                replaced.add(weight)
            else:
                protos.append(ir.serde.serialize_node(node))
        read = {name for proto in protos for name in proto.input}
        feeds = {}
        for leaf in leaves:
            if leaf in given:
                feeds[str(leaf.name)] = given[leaf]
            elif str(leaf.name) in read:
                feeds[str(leaf.name)] = _zeros(leaf)
        arrays = _run(self._opset, protos, feeds, [str(value.name) for value in wanted])
        found = {value: tuple(array.shape) for value, array in zip(wanted, arrays, strict=True)}
        return found | {target: tuple(given[target].shape) for target in targets if target in given}

    @property
    def _opset(self) -> int:
        return int(self._model.opset_imports[""])

    def _weight(self, value: ir.Value) -> Array:
        layout = layout_of(value)
        constant = ir.convenience.get_const_tensor(value)
        if constant is not None:
            return constant.numpy()
        if layout is None or layout.coded or any(source not in self._weights for source in layout.sources):
            raise UnknownValueError(f"{value.name} is not known")
        return laid_out(layout, self._weights)


def _cone(targets: Sequence[ir.Value], given: set[ir.Value]) -> tuple[list[ir.Node], list[ir.Value]]:
    """The nodes that `targets` need when `given` are known, in order, and the values without a producer among them."""
    nodes: dict[ir.Node, None] = {}
    leaves: dict[ir.Value, None] = {}
    stack: list[tuple[ir.Value, bool]] = [(target, False) for target in reversed(targets)]
    done: set[ir.Value] = set()
    while stack:
        value, expanded = stack.pop()
        producer = value.producer()
        if expanded:
            assert producer is not None
            nodes.setdefault(producer)
            continue
        if value in done:
            continue
        done.add(value)
        if value in given or producer is None:
            leaves[value] = None
            continue
        stack.append((value, True))
        stack += [(each, False) for each in reversed(producer.inputs) if each is not None]
    return list(nodes), list(leaves)


def _columns_of_sums(node: ir.Node, weight: ir.Value) -> list[onnx.NodeProto]:
    """Nodes of the shape of `node`, a product with `weight`, which do not read it."""
    assert weight.shape is not None
    sizes = weight.shape.numpy()
    columns = sizes[0 if node.attributes.get_int("transB", 0) else 1]
    name, out = f"{node.outputs[0].name}/sums", str(node.outputs[0].name)
    axis = helper.make_node("Constant", [], [f"{name}/axis"], value=numpy_helper.from_array(np.array([-1])))
    width = helper.make_node("Constant", [], [f"{name}/width"], value=numpy_helper.from_array(np.array([columns])))
    zeros = helper.make_node("ConstantOfShape", [f"{name}/width"], [f"{name}/zeros"])
    sums = helper.make_node("ReduceSum", [str(node.inputs[0].name), f"{name}/axis"], [name])  # type: ignore[union-attr]
    return [axis, width, zeros, sums, helper.make_node("Add", [name, f"{name}/zeros"], [out])]


def _is_matrix(weight: ir.Value) -> bool:
    return weight.shape is not None and len(weight.shape) == 2


def _zeros(value: ir.Value) -> Array:
    constant = ir.convenience.get_const_tensor(value)
    if constant is not None:
        return constant.numpy()
    if value.shape is None or value.dtype is None or layout_of(value) is None:
        raise UnknownValueError(f"{value.name} is not known")
    return np.zeros(value.shape.numpy(), value.dtype.numpy())


def _run(opset: int, nodes: list[onnx.NodeProto], feeds: Mapping[str, Array], outputs: list[str]) -> list[Array]:
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim)
        for name, array in feeds.items()
    ]
    graph = helper.make_graph(nodes, "part", inputs, [onnx.ValueInfoProto(name=name) for name in outputs])
    domains = [helper.make_opsetid("", opset), helper.make_opsetid(CONTRIB, 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=_IR_VERSION)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = _QUIET
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return [np.asarray(array) for array in session.run(outputs, dict(feeds))]
    except Exception as error:  # onnxruntime's own tree of errors
        raise UnknownValueError(f"{', '.join(outputs[:2])} cannot be computed: {error}") from error
