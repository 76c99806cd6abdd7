"""Spellings that the rules need not know: each is rewritten to plainer operators before the graph is read."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass, ShapeInferencePass

from gpt_export.passes.building import constant
from gpt_export.passes.cache.einsums import rewrite_einsum


def normalise(model: ir.Model) -> None:
    """Rewrites `model` in place.

    CastLike becomes Cast, so that what is cast does not depend on what it is cast like; a sequence that is split off
    and picked from becomes slices; Einsum becomes MatMul between transpositions.
    """
    _casts(model)
    RemoveUnusedNodesPass()(model)
    for node in list(model.graph):
        if node.op_type == "SplitToSequence":
            _slices(model.graph, node)
        elif node.op_type == "Einsum":
            rewrite_einsum(model.graph, node)


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
        _replace(model.graph, node, cast, output)


def _kind(node: ir.Node) -> ir.DataType | None:
    like = node.inputs[1]
    return None if like is None else like.dtype


def _slices(graph: ir.Graph, split: ir.Node) -> None:
    """SequenceAt of a SplitToSequence is a Slice, where sizes and place are constants; one entry is a Gather."""
    given = split.inputs[1] if len(split.inputs) > 1 else None
    sizes = None if given is None else _folded(given)
    axis = split.attributes["axis"].as_int() if "axis" in split.attributes else 0
    for use in list(split.outputs[0].uses()):
        picked = use.node
        place = _folded(picked.inputs[1]) if picked.op_type == "SequenceAt" and picked.inputs[1] is not None else None
        if place is None or (given is not None and sizes is None):
            return
        at = int(place.numpy().reshape(()))
        _pick(graph, split, picked, axis, None if sizes is None else _bounds(sizes, at), at)
    graph.remove(split, safe=True)


def _pick(graph: ir.Graph, split: ir.Node, picked: ir.Node, axis: int, bounds: tuple[int, int] | None, at: int) -> None:
    name = str(picked.name)
    keeps = "keepdims" not in split.attributes or bool(split.attributes["keepdims"].as_int())
    if bounds is None and not keeps:
        index = constant(f"{name}/index", at)
        graph.insert_before(picked, index)
        made = ir.node("Gather", [split.inputs[0], index.outputs[0]], attributes={"axis": axis}, name=name)
    else:
        start, end = bounds or (at, at + 1)
        numbers = [constant(f"{name}/{what}", [n]) for what, n in (("start", start), ("end", end), ("axis", axis))]
        graph.insert_before(picked, numbers)
        made = ir.node("Slice", [split.inputs[0], *(each.outputs[0] for each in numbers)], name=name)
    _replace(graph, picked, made, picked.outputs[0])


def _folded(value: ir.Value) -> ir.TensorProtocol | None:
    """The tensor of a constant, also behind casts."""
    found: ir.Value | None = value
    while found is not None:
        tensor = ir.convenience.get_const_tensor(found)
        if tensor is not None:
            return tensor
        node = found.producer()
        found = node.inputs[0] if node is not None and node.op_type in ("Cast", "Identity") else None
    return None


def _bounds(sizes: ir.TensorProtocol, place: int) -> tuple[int, int]:
    numbers = sizes.numpy()
    if numbers.ndim == 0:
        return int(numbers) * place, int(numbers) * (place + 1)
    ends = numbers.cumsum()
    return int(ends[place] - numbers[place]), int(ends[place])


def _replace(graph: ir.Graph, old: ir.Node, new: ir.Node, output: ir.Value) -> None:
    """Puts `new` in the place of `old`, whose `output` becomes its own."""
    new.metadata_props.update(old.metadata_props)
    made = new.outputs[0]
    made.name, made.type, made.shape = output.name, output.type, output.shape
    graph.insert_before(old, new)
    ir.convenience.replace_all_uses_with(output, made, replace_graph_outputs=True)
    graph.remove(old, safe=True)
