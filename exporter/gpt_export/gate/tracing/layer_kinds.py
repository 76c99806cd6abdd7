"""Which layers of a graph do the same with other weights."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import onnx

from gpt_export.gate.tracing.anchors import Anchor, layer_of

SMALL_BYTES = 4096
"""A constant up to this size is told by what it holds, a larger one by its name: layers that share it are alike."""

_STREAM = 2
"""What runs through the layers is read by the one that makes it and by the next."""
_NUMBER = re.compile(r"\d+")
"""What tells inputs of a graph apart that are the same for each layer, such as its past."""

_Kind = tuple[object, ...]


def first_of_each_kind(
    graph: onnx.GraphProto, anchors: Sequence[Anchor], sources: Mapping[str, tuple[str, ...]]
) -> tuple[int, int]:
    """How many layers from the first on hold one of every kind, and how many there are; (0, 0) where that is unknown.

    Two layers are of a kind if the same operators stand in them in the same order, with the same attributes and
    constants, and read weights of the same shapes at the same places, and of everything else the same: what stands at
    the same place in them, at the same place in front of them, or one and the same tensor from further away. The last
    layer is told by as much of it as another one holds, since the head stands behind it.

    Args:
        anchors: of the graph, in its order, see `find_anchors`.
        sources: by initializer, the parameters that it holds.
    """
    told = _Told(graph, sources)
    starts: dict[int, int] = {}
    for anchor in anchors:
        layer = layer_of(anchor.modules[0])
        if layer is not None:
            starts[layer] = min(starts.get(layer, len(graph.node)), told.order[anchor.tensor] + 1)
    bounds = [starts[layer] for layer in sorted(starts)]
    if len(bounds) < 2 or sorted(starts) != list(range(len(bounds))) or bounds != sorted(bounds):
        return 0, 0
    kinds: list[_Kind] = []
    before = 0
    layers = list(itertools.pairwise([*bounds, len(graph.node)]))
    told.share(layers)
    for start, stop in layers:
        kinds.append(tuple(told.node(node, before, start) for node in graph.node[start:stop]))
        before = start
    last = kinds.pop()
    known = [kind for kind in kinds if last[: len(kind)] == kind]
    kinds.append(known[0] if known else last)
    firsts = [kinds.index(kind) for kind in kinds]
    return max(firsts) + 1, len(kinds)


class _Told:
    """What makes a node the same as another: everything but the numbers of weights and the names of tensors."""

    def __init__(self, graph: onnx.GraphProto, sources: Mapping[str, tuple[str, ...]]) -> None:
        self._nodes = list(graph.node)
        self.order = {name: index for index, node in enumerate(graph.node) for name in node.output}
        self._shared: set[str] = set()
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._sources = sources

    def share(self, layers: Sequence[tuple[int, int]]) -> None:
        """Finds what is made once for all `layers`, from node to node, such as masks: more than two of them read it."""
        readers = Counter(
            name for start, stop in layers for name in {name for node in self._nodes[start:stop] for name in node.input}
        )
        self._shared = {name for name, count in readers.items() if count > _STREAM and name in self.order}

    def node(self, node: onnx.NodeProto, before: int, start: int) -> _Kind:
        """A node of the layer that begins at `start`; the one in front of it begins at `before`."""
        attributes = sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute)
        return (
            node.domain,
            node.op_type,
            tuple(attributes),
            tuple(self._input(name, before, start) for name in node.input),
        )

    def _input(self, name: str, before: int, start: int) -> object:
        tensor = self._initializers.get(name)
        if tensor is None:
            at = self.order.get(name, -1)
            if name in self._shared:
                return "outside", name
            if at >= start:
                return "inside", at - start
            if at >= before > 0:
                return "in front", start - at
            return "outside", name if at >= 0 else _NUMBER.sub("", name)
        if name in self._sources:
            return "weight", tuple(tensor.dims)
        held = onnx.TensorProto()
        held.CopyFrom(tensor)
        held.name = ""
        small = tensor.data_location != onnx.TensorProto.EXTERNAL and tensor.ByteSize() <= SMALL_BYTES
        return held.SerializeToString(deterministic=True) if small else name
