"""Where a graph attends: from what is written to the cache to the softmax and on to what leaves attention."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

from gpt_export.passes.fused.dataflow import Dataflow, multiplies_weight

_PRESENT = "present."
_PRODUCTS = frozenset({"MatMul", "Einsum", "FusedMatMul"})
_MOVES = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Cast", "Identity"})


class NoSiteError(Exception):
    """A layer does not attend in one product with its keys, one softmax and one product with its values."""


@dataclass(frozen=True, slots=True)
class Site:
    """The values at the borders of one layer's attention. What `query_gates` and the like hold is latest first."""

    layer: int
    past_key: ir.Value
    past_value: ir.Value
    present_key: ir.Value
    present_value: ir.Value
    new_key: ir.Value
    new_value: ir.Value
    query: ir.Value
    """What is multiplied with the keys."""
    scores: ir.Value
    """The product of queries and keys."""
    logits: ir.Value
    """What the softmax is taken of."""
    outs: tuple[ir.Value, ...]
    """The product of weights and values, and what is only moved behind it, in order."""

    @property
    def values(self) -> tuple[ir.Value, ...]:
        """Those whose shapes have to be known."""
        return (self.query, self.scores, self.logits, *self.outs)


def sites(graph: ir.Graph, flow: Dataflow) -> dict[int, Site | str]:
    """For each layer of the cache the place where it attends, or why there is none in a form that is known."""
    outputs = {str(value.name): value for value in graph.outputs}
    layers = sorted({int(name.split(".")[1]) for name in outputs if name.startswith(_PRESENT)})
    found: dict[int, Site | str] = {}
    for layer in layers:
        try:
            found[layer] = _site(layer, outputs[f"{_PRESENT}{layer}.key"], outputs[f"{_PRESENT}{layer}.value"], flow)
        except NoSiteError as error:
            found[layer] = str(error)
    return found


def key_gates(flow: Dataflow, new: ir.Value) -> list[ir.Value]:
    """The values that all of `new` passes through on its way from a projection, latest first."""
    return flow.gates(new, lambda node: not multiplies_weight(node) and node.op_type not in ("Softmax",))


def _site(layer: int, key: ir.Value, value: ir.Value, flow: Dataflow) -> Site:
    past_key, new_key = _appended(key)
    past_value, new_value = _appended(value)
    keys, values = _alone(flow, key), _alone(flow, value)
    scored = _only(flow.joins(keys), "products with its keys")
    mixed = _only(flow.joins(values), "products with its values")
    query = _other(flow, scored, keys)
    weights = _other(flow, mixed, values)
    behind = flow.gates(weights, lambda node: not multiplies_weight(node))
    softmaxes = [each.producer() for each in behind if (node := each.producer()) and node.op_type == "Softmax"]
    softmax = _only([node for node in softmaxes if node is not None], "softmaxes")
    if scored.outputs[0] not in behind:
        raise NoSiteError("more than the scores goes into its softmax")
    logits = softmax.inputs[0]
    assert logits is not None
    outs = [mixed.outputs[0]]
    while len(readers := flow.readers(outs[-1])) == 1 and readers[0].op_type in _MOVES:
        outs.append(readers[0].outputs[0])
    sides = (past_key, past_value, key, value, new_key, new_value, query, scored.outputs[0], logits)
    return Site(layer, *sides, tuple(outs))


def _appended(present: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Past and new of a `present` that is one behind the other."""
    node = present.producer()
    past, new = node.inputs if node is not None and node.op_type == "Concat" and len(node.inputs) == 2 else (None, None)
    if past is None or new is None or not past.is_graph_input():
        raise NoSiteError("its present is not a past and what is new behind it")
    return past, new


def _alone(flow: Dataflow, present: ir.Value) -> list[ir.Value]:
    """What is computed from `present` and no other data."""
    return flow.functions_of(present, lambda node: not multiplies_weight(node))


def _other(flow: Dataflow, product: ir.Node, own: Iterable[ir.Value]) -> ir.Value:
    """The factor of `product` that is not among `own`."""
    others = [value for value in flow.data_inputs(product) if value not in set(own)]
    if len(others) != 1 or product.op_type not in _PRODUCTS:
        raise NoSiteError(f"its keys or values meet a {product.op_type} of {len(others) + 1} tensors")
    return others[0]


def _only(nodes: list[ir.Node], what: str) -> ir.Node:
    if len(nodes) != 1:
        raise NoSiteError(f"it has {len(nodes)} {what}, not one")
    return nodes[0]
