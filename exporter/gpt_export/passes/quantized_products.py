"""Products with quantised weights: MatMulNBits by blocks, MatMulIntegerToFloat by rows and tokens."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from gpt_export.errors import GraphError
from gpt_export.passes.building import CONTRIB, constant, graph_input, name_outputs
from gpt_export.runtime.signature import INPUT_IDS
from gpt_export.weights.layout import Coded, Layout, layout_of, set_layout
from gpt_export.weights.quantize.schemes import PrecisionPlan, Scheme

logger = logging.getLogger(__name__)

ACCURACY_LEVEL = 4
"""Activations are quantised to 8 bits by block, and the products are of integers (MatMulNBits)."""
LEAST_COVERAGE = 0.95
COVERAGE = "gpt_export_quantized_share"
"""Where the pass leaves the share of the weights in products that it quantised, among a model's `meta`."""
_TOKEN_ZERO_POINT = 128
_TOKEN_STEPS = 127


class QuantizeProducts(InPlacePass):
    """Replaces every product with a weight, and the lookup of a token embedding, by operators on quantised weights.

    A tied embedding is stored once: the lookup reads the head's codes and scales through a Reshape.

    Args:
        plan: the schemes of the precision.

    Raises:
        GraphError: less than `LEAST_COVERAGE` of the weights in products were reached.
    """

    def __init__(self, plan: PrecisionPlan) -> None:
        super().__init__()
        self._plan = plan

    def call(self, model: ir.Model) -> PassResult:
        graph = model.graph
        tokens = _Tokens(graph)
        total = sum(_size(weight) for weight in graph.inputs if _multiplied(weight))
        reached = 0
        for node in list(graph):
            weight = node.inputs[1] if len(node.inputs) > 1 else None
            if weight is None or node.op_type not in ("MatMul", "Gemm") or layout_of(weight) is None:
                continue
            reached += _size(weight)
            if node.op_type == "Gemm" or node.outputs[0].is_graph_output():
                _head(graph, node, weight, self._plan)
            else:
                _body(graph, node, weight, self._plan, tokens)
        for table in [value for value in graph.inputs if _is_token_table(value)]:  # no tied head has taken it along
            width = int(table.shape[1])  # type: ignore[index, arg-type]
            scheme = self._plan.head(width)
            codes, scales = _coded(graph, table, scheme)
            for lookup in _lookups(table):
                _lookup(graph, lookup, codes, scales, width, scheme)
        coverage = reached / total if total else 0.0
        if coverage < LEAST_COVERAGE:
            raise GraphError(f"only {coverage:.0%} of the weights in products were quantised")
        model.meta[COVERAGE] = round(coverage, 4)
        logger.info("quantised %.1f %% of the weights in products", 100 * coverage)
        return PassResult(model, modified=True)


def _multiplied(weight: ir.Value) -> bool:
    """Whether a weight is a factor of a product, itself or through a carrier."""
    if layout_of(weight) is None or weight.shape is None or len(weight.shape) != 2:
        return False
    products = ("MatMul", "Gemm")
    for node, index in weight.uses():
        if node.op_type in products and index == 1:
            return True
        if node.op_type == "Transpose" and any(reader.op_type in products for reader, _ in node.outputs[0].uses()):
            return True
    return False


def _size(weight: ir.Value) -> int:
    assert weight.shape is not None
    return int(np.prod(weight.shape.numpy()))


def _lookups(table: ir.Value) -> list[ir.Node]:
    return [reader for reader, index in table.uses() if reader.op_type == "Gather" and index == 0]


def _is_token_table(value: ir.Value) -> bool:
    """Whether rows of `value` are looked up by token."""
    for lookup in _lookups(value) if layout_of(value) else []:
        ids = lookup.inputs[1]
        flattened = ids.producer() if ids is not None else None
        if flattened is not None and flattened.op_type == "Reshape":
            ids = flattened.inputs[0]
        if ids is not None and ids.name == INPUT_IDS:
            return True
    return False


def _coded(graph: ir.Graph, weight: ir.Value, scheme: Scheme) -> tuple[ir.Value, ir.Value]:
    """New weights of the graph: the codes and scales of `weight`."""
    layout = layout_of(weight)
    assert layout is not None
    assert weight.shape is not None
    shape = weight.shape.numpy()
    rows, width = shape[::-1] if layout.transposed else shape
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    if scheme.block is None:
        shapes = ((width, rows), (rows,))
        dtypes = (ir.DataType.INT8, ir.DataType.FLOAT)
    else:
        blocks = -(-width // scheme.block)
        shapes = ((rows, blocks, scheme.block * scheme.bits // 8), (rows, blocks))
        dtypes = (ir.DataType.UINT8, ir.DataType.FLOAT)
    values = []
    for part, part_shape, dtype in zip(("codes", "scales"), shapes, dtypes, strict=True):
        value = ir.Value(name=f"{weight.name}.{part}", type=ir.TensorType(dtype), shape=ir.Shape(part_shape))
        coded = Coded(part, scheme.bits, scheme.block)  # type: ignore[arg-type]
        set_layout(value, Layout(layout.sources, coded=coded))
        graph.inputs.append(value)
        values.append(value)
    return values[0], values[1]


def _by_blocks(
    x: ir.Value, codes: ir.Value, scales: ir.Value, width: int, scheme: Scheme, name: str, bias: ir.Value | None = None
) -> ir.Node:
    assert codes.shape is not None
    return ir.node(
        "MatMulNBits",
        [x, codes, scales, *([None, None, bias] if bias else [])],
        attributes={
            "K": width,
            "N": int(codes.shape[0]),  # type: ignore[arg-type]
            "bits": scheme.bits,
            "block_size": scheme.block,
            "accuracy_level": ACCURACY_LEVEL,
        },
        domain=CONTRIB,
        name=name,
    )


def _body(graph: ir.Graph, node: ir.Node, weight: ir.Value, plan: PrecisionPlan, tokens: _Tokens) -> None:
    x = node.inputs[0]
    assert x is not None
    width = int(weight.shape[0])  # type: ignore[index, arg-type]
    scheme = plan.body(width)
    codes, scales = _coded(graph, weight, scheme)
    name = str(node.name or node.outputs[0].name)
    if scheme.block is None:
        nodes = tokens.product(x, codes, scales, name)
    else:
        nodes = [_by_blocks(x, codes, scales, width, scheme, f"{name}_quantized")]
    for new in nodes:
        name_outputs(new)
    graph.insert_before(node, nodes)
    ir.convenience.replace_nodes_and_values(graph, node, [node], [], [node.outputs[0]], [nodes[-1].outputs[0]])


def _head(graph: ir.Graph, node: ir.Node, weight: ir.Value, plan: PrecisionPlan) -> None:
    """The head, and the lookup of a tied embedding. A Gemm's Reshapes around it go: MatMulNBits takes any rank."""
    layout = layout_of(weight)
    assert layout is not None
    shape = weight.shape.numpy()  # type: ignore[union-attr]
    width = int(shape[0] if layout.transposed else shape[1])
    scheme = plan.head(width)
    codes, scales = _coded(graph, weight, scheme)
    x, out = node.inputs[0], node.outputs[0]
    removed = [node]
    if node.op_type == "Gemm":
        flatten = x.producer() if x is not None else None
        unflatten = next(iter(out.uses())).node
        assert flatten is not None
        x, out = flatten.inputs[0], unflatten.outputs[0]
        removed = [unflatten, node]
    assert x is not None
    product = name_outputs(_by_blocks(x, codes, scales, width, scheme, f"{node.name}_quantized"))
    for lookup in _lookups(weight):
        _lookup(graph, lookup, codes, scales, width, scheme)
    graph.insert_before(removed[0], [product])
    ir.convenience.replace_nodes_and_values(graph, removed[0], removed, [], [out], [product.outputs[0]])


def _lookup(graph: ir.Graph, gather: ir.Node, codes: ir.Value, scales: ir.Value, width: int, scheme: Scheme) -> None:
    """A Gather of rows as GatherBlockQuantized on the very bytes of the head."""
    name = str(gather.name or gather.outputs[0].name)
    assert codes.shape is not None
    rows, blocks, block_bytes = codes.shape.numpy()
    shape = constant(f"{name}/codes_shape", [rows, blocks * block_bytes])
    flat = name_outputs(ir.node("Reshape", [codes, shape.outputs[0]], name=f"{name}/codes"))
    taken = ir.node(
        "GatherBlockQuantized",
        [flat.outputs[0], gather.inputs[1], scales],
        attributes={"bits": scheme.bits, "block_size": scheme.block, "gather_axis": 0, "quantize_axis": 1},
        domain=CONTRIB,
        name=f"{name}/rows",
    )
    nodes = [shape, flat, name_outputs(taken)]
    if blocks * (scheme.block or 1) != width:  # the last block was filled up
        start, end, axis = (
            constant(f"{name}/{what}", [at]) for what, at in (("start", 0), ("end", width), ("axis", -1))
        )
        cut = ir.node(
            "Slice", [taken.outputs[0], *(each.outputs[0] for each in (start, end, axis))], name=f"{name}/cut"
        )
        nodes += [start, end, axis, name_outputs(cut)]
    graph.insert_before(gather, nodes)
    ir.convenience.replace_nodes_and_values(graph, gather, [gather], [], [gather.outputs[0]], [nodes[-1].outputs[0]])


class _Tokens:
    """Quantises activations token by token: symmetric, 8 bits, one scale for each row of a flat (tokens, K) tensor.

    A token of zeros has the scale 0: whatever codes it gets, they are multiplied by 0 behind the product.

    A scale for each token, and none for all of them, keeps what is computed of a token independent of those behind it
    and of the rows beside it. Method: Dettmers et al., arXiv:2208.07339, section 2 (vector-wise), without outliers.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._done: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
        self._shared: dict[str, ir.Value] = {}

    def product(self, x: ir.Value, codes: ir.Value, scales: ir.Value, name: str) -> list[ir.Node]:
        """The nodes of `x @ weight`; the last one's output is the product."""
        if not self._shared:
            self._share()
        nodes: list[ir.Node] = []
        if x not in self._done:
            nodes += self._quantize(x, name)
        quantized, token_scales = self._done[x]
        inputs = [quantized, codes, self._shared["one"], scales, self._shared["zero_point"]]
        product = ir.node("MatMulIntegerToFloat", inputs, domain=CONTRIB, name=f"{name}_integers")
        scaled = ir.node("Mul", [product.outputs[0], token_scales], name=f"{name}_quantized")
        return [*nodes, product, scaled]

    def _quantize(self, x: ir.Value, name: str) -> list[ir.Node]:
        shared = self._shared
        size = ir.node("Abs", [x], name=f"{name}/size")
        largest = ir.node(
            "ReduceMax", [size.outputs[0], shared["last_axis"]], attributes={"keepdims": 1}, name=f"{name}/largest"
        )
        scale = ir.node("Mul", [largest.outputs[0], shared["step"]], name=f"{name}/scale")
        flat = ir.node("Squeeze", [scale.outputs[0], shared["last_axis"]], name=f"{name}/scale_1d")
        codes = ir.node(
            "QuantizeLinear", [x, flat.outputs[0], shared["zero_points"]], attributes={"axis": 0}, name=f"{name}/tokens"
        )
        self._done[x] = codes.outputs[0], scale.outputs[0]
        return [size, largest, scale, flat, codes]

    def _share(self) -> None:
        ids = graph_input(self._graph, INPUT_IDS)
        nodes: list[ir.Node] = []
        for key, value, dtype in (
            ("one", 1, np.float32),
            ("step", 1 / _TOKEN_STEPS, np.float32),
            ("last_axis", [-1], np.int64),
            ("zero_point", _TOKEN_ZERO_POINT, np.uint8),
        ):
            nodes.append(constant(f"/tokens/{key}", value, dtype))
            self._shared[key] = nodes[-1].outputs[0]
        size = name_outputs(ir.node("Size", [ids], name="/tokens/size"))
        one = constant("/tokens/one_dim", [1])
        dims = name_outputs(ir.node("Reshape", [size.outputs[0], one.outputs[0]], name="/tokens/dims"))
        filled: dict[str, Any] = {"value": ir.tensor(np.array([_TOKEN_ZERO_POINT], np.uint8))}
        zeros = ir.node("ConstantOfShape", [dims.outputs[0]], attributes=filled, name="/tokens/zero_points")
        nodes += [size, one, dims, name_outputs(zeros)]
        self._shared["zero_points"] = zeros.outputs[0]
        self._graph.insert_before(self._graph[0], nodes)
