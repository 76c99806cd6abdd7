"""Which products of a graph have a weight as a factor, and which lookups read one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from gpt_export.runtime.signature import INPUT_IDS, LOGITS
from gpt_export.weights.layout import layout_of

_FACTORS = ("MatMul", "Gemm")
_NARROWEST = 16
_CHOICES = frozenset({"TopK", "ArgMax"})
_FURTHER_STEPS = frozenset({"GroupQueryAttention", "LayerNormalization", "SkipLayerNormalization", "Shape"})
"""Operators beside products behind which another step of the model begins."""
_SHAPE_MOVERS = ("Reshape", "Cast", "Unsqueeze", "Squeeze", "Flatten", "Identity")


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """A MatMul or Gemm whose second factor is a weight of two axes."""

    node: ir.Node
    weight: ir.Value
    inputs_first: bool
    """Whether the graph has the weight as (K inputs, N outputs); else it is (N, K)."""
    bias: ir.Value | None = None
    """What a Gemm adds."""

    @property
    def x(self) -> ir.Value:
        """What is multiplied by the weight, as the graph has it now."""
        x = self.node.inputs[0]
        assert x is not None
        return x

    @property
    def outputs(self) -> int:
        """N, the rows of the matrix as torch's linear layers have it."""
        return _dims(self.weight)[1 if self.inputs_first else 0]

    @property
    def width(self) -> int:
        """K, how many numbers of a token are summed."""
        return _dims(self.weight)[0 if self.inputs_first else 1]


def find_products(graph: ir.Graph) -> list[Product]:
    """The products with a weight, in the order of the graph, but for narrow ones and those that choose experts.

    Both are small and say much: a few numbers that stand for a whole token, as low-rank factors have them, lose most by
    rounding, and a score that is rounded may send a token to another expert.
    """
    products = (product for node in graph if (product := _product(node)) is not None)
    return [each for each in products if min(_dims(each.weight)) >= _NARROWEST and not _chooses(each.node)]


def find_heads(graph: ir.Graph, products: list[Product]) -> set[ir.Node]:
    """The nodes of the products that no other one lies behind: those that give the logits."""
    nodes = {product.node for product in products}
    every = {node for node in graph if _product(node) is not None}  # those that are left as they are among them
    heads: set[ir.Node] = set()
    seen: set[ir.Value] = set()
    waiting = [value for value in graph.outputs if value.name == LOGITS]
    while waiting:
        value = waiting.pop()
        node = value.producer()
        if value in seen or node is None or node.op_type == "Shape":  # sizes are no scores
            continue
        seen.add(value)
        if node in every:
            heads |= {node} & nodes
        else:
            waiting += [each for each in node.inputs if each is not None]
    return heads


def size_of(weight: ir.Value) -> int:
    """How many numbers a weight holds."""
    size = 1
    for dim in _dims(weight):
        size *= dim
    return size


def multiplied(graph: ir.Graph) -> Iterator[ir.Value]:
    """The weights of two or more axes that are a factor of a product, themselves, transposed or a slice at a time."""
    for value in graph.inputs:
        if layout_of(value) is not None and value.shape is not None and len(value.shape) >= 2 and _is_factor(value):
            yield value


def token_lookups(table: ir.Value) -> list[ir.Node]:
    """The Gathers that take rows of a weight by token id; empty for tables of positions and for every other weight."""
    if layout_of(table) is None or table.shape is None or len(table.shape) != 2:
        return []
    readers = [node for node, index in table.uses() if node.op_type == "Gather" and index == 0]
    return [node for node in readers if node.attributes.get_int("axis", 0) == 0 and _is_ids(node.inputs[1])]


def _is_ids(value: ir.Value | None) -> bool:
    while value is not None and (node := value.producer()) is not None and node.op_type in _SHAPE_MOVERS:
        value = node.inputs[0]
    return value is not None and value.name == INPUT_IDS


def _product(node: ir.Node) -> Product | None:
    if node.op_type not in _FACTORS or node.domain:
        return None
    x, weight, *rest = node.inputs
    if x is None or weight is None or layout_of(weight) is None or len(_dims(weight)) != 2:
        return None
    if node.op_type == "MatMul":
        return Product(node, weight, inputs_first=True)
    plain = node.attributes.get_float("alpha", 1.0) == node.attributes.get_float("beta", 1.0) == 1.0
    if not plain or node.attributes.get_int("transA", 0) == 1:
        return None
    return Product(
        node,
        weight,
        inputs_first=node.attributes.get_int("transB", 0) == 0,
        bias=next(iter(rest), None),
    )


def _chooses(product: ir.Node) -> bool:
    """Whether what a product gives is compared for the largest before it is multiplied again."""
    waiting, seen = list(product.outputs), set(product.outputs)
    while waiting:
        for node, _ in waiting.pop().uses():
            if node.op_type in _CHOICES:
                return True
            if node.op_type in (*_FACTORS, "Einsum") or node.op_type in _FURTHER_STEPS:
                continue
            waiting += [value for value in node.outputs if value not in seen]
            seen.update(node.outputs)
    return False


def _is_factor(weight: ir.Value) -> bool:
    waiting = [weight]
    while waiting:
        for node, index in waiting.pop().uses():
            if node.op_type in (*_FACTORS, "Einsum"):
                return True
            if node.op_type in ("Transpose", "Slice", "Split", "Squeeze", "Reshape") or (
                node.op_type == "Gather" and index == 0 and not _is_ids(node.inputs[1]) and len(_dims(weight)) > 2
            ):
                waiting += node.outputs
    return False


def _dims(value: ir.Value) -> tuple[int, ...]:
    assert value.shape is not None
    return value.shape.numpy()
