"""Spellings that the rules need not know: each is rewritten to plainer operators before the graph is read."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass


def normalise(model: ir.Model) -> None:
    """Rewrites `model` in place: CastLike becomes Cast, so that what is cast does not depend on what it is cast like."""
    _casts(model)


def _casts(model: ir.Model) -> None:
    casts = [node for node in model.graph if node.op_type == "CastLike" and node.domain == ""]
    if any(_kind(node) is None for node in casts):
        ShapeInferencePass()(model)
    for node in casts:
        kind = _kind(node)
        if kind is None:
            continue
        output = node.outputs[0]
        cast = ir.node("Cast", [node.inputs[0]], attributes={"to": kind}, name=node.name)
        cast.metadata_props.update(node.metadata_props)
        _replace(model.graph, node, cast, output)


def _kind(node: ir.Node) -> ir.DataType | None:
    like = node.inputs[1]
    return None if like is None else like.dtype


def _replace(graph: ir.Graph, old: ir.Node, new: ir.Node, output: ir.Value) -> None:
    """Puts `new` in the place of `old`, whose `output` becomes its own."""
    made = new.outputs[0]
    made.name, made.type, made.shape = output.name, output.type, output.shape
    graph.insert_before(old, new)
    ir.convenience.replace_all_uses_with(output, made, replace_graph_outputs=True)
    graph.remove(old, safe=True)
