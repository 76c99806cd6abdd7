"""Attention as dataflow: products of queries and keys, what their scores become, and the product with the values."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from gpt_export.passes.cache.axes import columns_of
from gpt_export.passes.cache.cuts import Cut, find_cut
from gpt_export.passes.cache.interpreter import Meaning
from gpt_export.passes.cache.rules.reading import Product


@dataclass(frozen=True, slots=True, eq=False)
class Attention:
    """One product with values, and all that leads to what it weighs them by."""

    products: tuple[Product, ...]
    """Of queries and keys; several where weights are combined (differential attention)."""
    softmaxes: tuple[ir.Node, ...]
    between: frozenset[ir.Node]
    """The nodes from the scores to the weights."""
    leaves: tuple[ir.Value, ...]
    """The data that those nodes start from: scores, and what else meets them."""
    mix: ir.Node
    weights: ir.Value
    keys: tuple[Cut, ...]
    value: Cut
    depth: int
    """How many attentions lie in front of it."""


def find_attentions(meaning: Meaning, graph: ir.Graph) -> list[Attention]:
    """Every attention of the graph, in order.

    Raises:
        CacheRefusedError: keys or values are of no form that can be cached.
    """
    depths = _depths(meaning, graph)
    return [_attention(meaning, node, depths[node]) for node in graph if node in meaning.found.mixes]


def _attention(meaning: Meaning, mix: ir.Node, depth: int) -> Attention:
    place = meaning.found.mixes[mix]
    weights, value = mix.inputs[1 - place], mix.inputs[place]
    assert weights is not None
    assert value is not None
    between, leaves = _between(meaning, weights)
    by_node = {product.node: product for product in meaning.found.products}
    producers = [leaf.producer() for leaf in leaves]
    products = sorted((by_node[node] for node in producers if node in by_node), key=lambda each: each.number)
    keys = []
    for product in products:
        key = product.node.inputs[product.key]
        assert key is not None
        keys.append(find_cut(meaning, product.node, key, scaled=True))
    return Attention(
        products=tuple(products),
        softmaxes=tuple(node for node in between if node in meaning.found.softmaxes),
        between=frozenset(between),
        leaves=tuple(leaves),
        mix=mix,
        weights=weights,
        keys=tuple(keys),
        value=find_cut(meaning, mix, value, scaled=False),
        depth=depth,
    )


def _between(meaning: Meaning, weights: ir.Value) -> tuple[list[ir.Node], list[ir.Value]]:
    """The nodes behind `weights` that belong to its attention, and the data that they start from."""
    products = {product.node for product in meaning.found.products}
    nodes: list[ir.Node] = []
    leaves: list[ir.Value] = []
    stack, seen = [weights], {weights}
    while stack:
        value = stack.pop()
        node = value.producer()
        if node is None or node in products or not _sees_columns(meaning, node):
            leaves.append(value)
            continue
        nodes.append(node)
        new = [
            each for each in node.inputs if each is not None and each not in seen and meaning.depends[each] == "data"
        ]
        seen.update(new)
        stack.extend(new)
    return nodes, leaves


def _sees_columns(meaning: Meaning, node: ir.Node) -> bool:
    """Whether columns go in or out: a maximum over them is still part of a Softmax that is written out."""
    if node in meaning.found.mixes:
        return False
    values = [value for value in (*node.inputs, *node.outputs) if value is not None and value in meaning.facts]
    return any(
        columns_of(of) for value in values if meaning.depends[value] == "data" for of in meaning.facts[value].axes
    )


def _depths(meaning: Meaning, graph: ir.Graph) -> dict[ir.Node, int]:
    depth: dict[ir.Value, int] = {}
    mixes: dict[ir.Node, int] = {}
    for node in graph:
        here = max((depth.get(value, 0) for value in node.inputs if value is not None), default=0)
        if node in meaning.found.mixes:
            mixes[node] = here
            here += 1
        for value in node.outputs:
            depth[value] = here
    return mixes
