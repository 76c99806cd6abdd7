"""Query, key and value projections that read the same tensor become one product."""

from __future__ import annotations

import logging
from collections import defaultdict

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from gpt_export.passes.building import constant, name_outputs
from gpt_export.weights.layout import Layout, layout_of, set_layout

logger = logging.getLogger(__name__)

PACKED = 3


class PackProjections(InPlacePass):
    """Joins three linear layers that read one tensor: one MatMul (and Add), then a Split into what each computed.

    The joined weight is declared by its layout; its bytes are put side by side when they are written.
    """

    def call(self, model: ir.Model) -> PassResult:
        readers: dict[ir.Value, list[ir.Node]] = defaultdict(list)
        for node in model.graph:
            if node.op_type == "MatMul" and node.inputs[0] is not None and _weight(node.inputs[1]):
                readers[node.inputs[0]].append(node)
        groups = [nodes for nodes in readers.values() if len(nodes) == PACKED and _alike(nodes)]
        for products in groups:
            _pack(model.graph, products)
        if groups:
            logger.info("packed %d groups of projections", len(groups))
        return PassResult(model, modified=bool(groups))


def _weight(value: ir.Value | None) -> Layout | None:
    """The layout of a stored (in, out) weight with one reader."""
    layout = layout_of(value) if value is not None else None
    return layout if layout and layout.transposed and len(value.uses()) == 1 else None  # type: ignore[union-attr]


def _alike(products: list[ir.Node]) -> bool:
    biases = [_bias_add(node) for node in products]
    return all(biases) or not any(biases)


def _bias_add(product: ir.Node) -> ir.Node | None:
    """The Add of a bias that is the only reader of a product."""
    readers = [node for node, _ in product.outputs[0].uses()]
    if len(readers) != 1 or readers[0].op_type != "Add":
        return None
    return readers[0] if _bias(readers[0]) is not None else None


def _bias(add: ir.Node) -> ir.Value | None:
    return next((value for value in add.inputs if value is not None and layout_of(value)), None)


def _pack(graph: ir.Graph, products: list[ir.Node]) -> None:
    adds = [add for node in products if (add := _bias_add(node))]
    ends = adds or products
    anchor = products[0]
    prefix = str(anchor.outputs[0].name)
    widths = [int(node.inputs[1].shape[1]) for node in products]  # type: ignore[union-attr, arg-type, index]
    weight = _joined(graph, [node.inputs[1] for node in products], axis=1)
    product = ir.node("MatMul", [anchor.inputs[0], weight], name=f"{prefix}_packed")
    nodes = [product]
    if adds:
        bias = _joined(graph, [_bias(add) for add in adds], axis=0)
        nodes.append(ir.node("Add", [product.outputs[0], bias], name=f"{prefix}_packed_bias"))
    sizes = constant(f"{prefix}_sizes", widths)
    split = ir.node(
        "Split",
        [nodes[-1].outputs[0], sizes.outputs[0]],
        attributes={"axis": -1},
        num_outputs=PACKED,
        name=f"{prefix}_split",
    )
    for node in (*nodes, split):
        name_outputs(node)
    graph.insert_before(anchor, [*nodes, sizes, split])
    for end, part in zip(ends, split.outputs, strict=True):
        end.outputs[0].replace_all_uses_with(part)
    for node in [*adds, *products]:
        graph.remove(node, safe=True)


def _joined(graph: ir.Graph, parts: list[ir.Value | None], axis: int) -> ir.Value:
    """A new weight input that holds `parts` side by side, in place of them."""
    values = [part for part in parts if part is not None]
    layouts = [layout for value in values if (layout := layout_of(value))]
    shape = list(values[0].shape.numpy())  # type: ignore[union-attr]
    shape[axis] = sum(int(value.shape[axis]) for value in values)  # type: ignore[index, arg-type, misc]
    joined = ir.Value(name=f"{values[0].name}+{len(values) - 1}", type=values[0].type, shape=ir.Shape(shape))
    sources = tuple(source for layout in layouts for source in layout.sources)
    set_layout(joined, Layout(sources, transposed=layouts[0].transposed))
    graph.inputs.insert(graph.inputs.index(values[0]), joined)
    return joined
