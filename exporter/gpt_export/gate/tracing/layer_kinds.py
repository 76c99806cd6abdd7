"""Which layers of a graph do the same with other weights."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import onnx

from gpt_export.gate.tracing.anchors import Anchor, layer_of

SMALL_BYTES = 4096
"""A constant up to this size is told by what it holds, a larger one by its name: layers that share it are alike."""

_Kind = tuple[object, ...]


def first_of_each_kind(
    graph: onnx.GraphProto, anchors: Sequence[Anchor], sources: Mapping[str, tuple[str, ...]]
) -> tuple[int, int]:
    """How many layers from the first on hold one of every kind, and how many there are; (0, 0) where that is unknown.

    Two layers are of a kind if the same operators stand in them in the same order, with the same attributes and
    constants, and read weights of the same shapes at the same places. The last layer is told by as much of it as
    another one holds, since the head stands behind it.

    Args:
        anchors: of the graph, in its order, see `find_anchors`.
        sources: by initializer, the parameters that it holds.
    """
    order = {name: index for index, node in enumerate(graph.node) for name in node.output}
    starts: dict[int, int] = {}
    for anchor in anchors:
        layer = layer_of(anchor.modules[0])
        if layer is not None:
            starts[layer] = min(starts.get(layer, len(graph.node)), order[anchor.tensor] + 1)
    bounds = [starts[layer] for layer in sorted(starts)]
    if len(bounds) < 2 or sorted(starts) != list(range(len(bounds))) or bounds != sorted(bounds):
        return 0, 0
    told = _Told(graph, sources)
    kinds: list[_Kind] = []
    for start, stop in itertools.pairwise(bounds):
        kinds.append(tuple(told.node(node) for node in graph.node[start:stop]))
    last = tuple(told.node(node) for node in graph.node[bounds[-1] :])
    known = [kind for kind in kinds if last[: len(kind)] == kind]
    kinds.append(known[0] if known else last)
    firsts = [kinds.index(kind) for kind in kinds]
    return max(firsts) + 1, len(kinds)


class _Told:
    """What makes a node the same as another: everything but the numbers of weights and the names of tensors."""

    def __init__(self, graph: onnx.GraphProto, sources: Mapping[str, tuple[str, ...]]) -> None:
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._sources = sources

    def node(self, node: onnx.NodeProto) -> _Kind:
        attributes = sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute)
        return node.domain, node.op_type, tuple(attributes), tuple(self._input(name) for name in node.input)

    def _input(self, name: str) -> object:
        tensor = self._initializers.get(name)
        if tensor is None:
            return bool(name)
        if name in self._sources:
            return "weight", tuple(tensor.dims)
        held = onnx.TensorProto()
        held.CopyFrom(tensor)
        held.name = ""
        small = tensor.data_location != onnx.TensorProto.EXTERNAL and tensor.ByteSize() <= SMALL_BYTES
        return held.SerializeToString(deterministic=True) if small else name
