"""Products with quantised weights: MatMulNBits by blocks, MatMulIntegerToFloat by rows and tokens."""

from __future__ import annotations

import logging
from collections import Counter

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from gpt_export.errors import GraphError
from gpt_export.passes.building import CONTRIB, constant, name_outputs
from gpt_export.passes.quantized.products import (
    Product,
    find_heads,
    find_products,
    multiplied,
    size_of,
    token_lookups,
)
from gpt_export.passes.quantized.tokens import FLAT, TokenCodes
from gpt_export.weights.layout import Coded, Layout, layout_of, set_layout
from gpt_export.weights.quantize.schemes import PrecisionPlan, Scheme

logger = logging.getLogger(__name__)

ACCURACY_LEVEL = 4
"""Activations are quantised to 8 bits by block, and the products are of integers (MatMulNBits)."""
LEAST_COVERAGE = 0.1
"""Of the weights in products, below which a quantised file is none."""
COVERAGE = "gpt_export_quantized_share"
"""Where the pass leaves the share of the weights in products that it quantised, among a model's `meta`."""


class QuantizeProducts(InPlacePass):
    """Replaces every product with a weight, and the lookup of a token embedding, by operators on quantised weights.

    A tied embedding is stored once: the lookup reads the head's codes and scales through a Reshape. A weight that
    several products read is stored once as well.

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
        products = find_products(graph)
        coverage = _coverage(graph, products)
        if coverage < LEAST_COVERAGE:
            raise GraphError(
                f"only {coverage:.0%} of the weights in products can be quantised: the others are multiplied in "
                "batches, are made on the way, or are narrower than 16; leave that precision out"
            )
        heads = find_heads(graph, products)
        lookups = {value: nodes for value in graph.inputs if (nodes := token_lookups(value))}
        readers = Counter(product.weight for product in products)
        # onnxruntime does not widen the sums of two integer products that read one weight (session.x64quantprecision).
        shared = {weight for weight, count in readers.items() if count > 1}
        by_block = {product.weight for product in products if product.node in heads} | lookups.keys() | shared
        tokens = TokenCodes(graph, flat=bool(model.meta.get(FLAT)))
        stored: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
        for product in products:
            weight = product.weight
            plan = self._plan.head if weight in by_block else self._plan.body
            scheme = plan(product.width)
            if weight not in stored:
                stored[weight] = _coded(graph, weight, scheme, inputs_first=product.inputs_first)
            _multiply(graph, product, *stored[weight], scheme, tokens)
        for table, nodes in lookups.items():
            width = int(table.shape[1])  # type: ignore[index, arg-type]
            scheme = self._plan.head(width)
            if table not in stored:
                stored[table] = _coded(graph, table, scheme, inputs_first=False)
            for node in nodes:
                _look_up(graph, node, *stored[table], width, scheme)
        graph.opset_imports[CONTRIB] = 1
        model.meta[COVERAGE] = round(coverage, 4)
        logger.info("quantised %.1f %% of the weights in products", 100 * coverage)
        return PassResult(model, modified=True)


def _coverage(graph: ir.Graph, products: list[Product]) -> float:
    """The share of the numbers in products' weights that `products` reach."""
    total = sum(size_of(weight) for weight in multiplied(graph))
    return sum(size_of(weight) for weight in {product.weight for product in products}) / total if total else 0.0


def _coded(graph: ir.Graph, weight: ir.Value, scheme: Scheme, *, inputs_first: bool) -> tuple[ir.Value, ir.Value]:
    """New weights of the graph: the codes and scales of `weight`."""
    layout = layout_of(weight)
    assert layout is not None
    assert weight.shape is not None
    shape = weight.shape.numpy()
    rows, width = shape[::-1] if inputs_first else shape
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
        # The matrix that is quantised has the outputs first, whichever way the source and the graph have it.
        set_layout(value, Layout(layout.sources, layout.transposed != inputs_first, coded))
        graph.inputs.append(value)
        values.append(value)
    return values[0], values[1]


def _multiply(
    graph: ir.Graph, product: Product, codes: ir.Value, scales: ir.Value, scheme: Scheme, tokens: TokenCodes
) -> None:
    """Puts the product with codes in the place of `product`."""
    name = str(product.node.name or product.node.outputs[0].name)
    if scheme.block is None:
        nodes = tokens.product(product.x, codes, scales, product.width, product.outputs, name)
        if product.bias is not None:
            nodes.append(name_outputs(ir.node("Add", [nodes[-1].outputs[0], product.bias], name=f"{name}/biased")))
        removed, out = [product.node], product.node.outputs[0]
    else:
        x, removed, out = _without_reshapes(product)
        nodes = [_by_blocks(x, codes, scales, product, scheme, f"{name}_quantized")]
    graph.insert_before(removed[0], nodes)
    ir.convenience.replace_nodes_and_values(graph, removed[0], removed, [], [out], [nodes[-1].outputs[0]])


def _without_reshapes(product: Product) -> tuple[ir.Value, list[ir.Node], ir.Value]:
    """What the product reads, the nodes it replaces and what they give: MatMulNBits takes any rank, so that a Reshape
    to rows, and the one that takes them back, go with a Gemm."""
    node, out = product.node, product.node.outputs[0]
    flatten = product.x.producer()
    readers = [reader for reader, _ in out.uses()]
    if flatten is None or flatten.op_type != "Reshape" or len(readers) != 1 or readers[0].op_type != "Reshape":
        return product.x, [node], out
    whole, shape = flatten.inputs[0], readers[0].inputs[1]
    dims = shape.producer() if shape is not None else None
    leading = dims.inputs[0].producer() if dims is not None and dims.op_type == "Concat" and dims.inputs[0] else None
    undone = leading is not None and leading.op_type == "Shape" and leading.inputs[0] is whole
    if whole is None or not undone or leading is None or leading.attributes.get_int("end", 0) != -1:
        return product.x, [node], out
    return whole, [readers[0], node], readers[0].outputs[0]


def _by_blocks(x: ir.Value, codes: ir.Value, scales: ir.Value, product: Product, scheme: Scheme, name: str) -> ir.Node:
    inputs = [x, codes, scales, *([None, None, product.bias] if product.bias is not None else [])]
    attributes = {
        "K": product.width,
        "N": product.outputs,
        "bits": scheme.bits,
        "block_size": scheme.block,
        "accuracy_level": ACCURACY_LEVEL,
    }
    return name_outputs(ir.node("MatMulNBits", inputs, attributes=attributes, domain=CONTRIB, name=name))


def _look_up(graph: ir.Graph, gather: ir.Node, codes: ir.Value, scales: ir.Value, width: int, scheme: Scheme) -> None:
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
