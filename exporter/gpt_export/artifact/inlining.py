"""How many nodes a model has once its functions stand where they are called, counted without putting them there.

onnxruntime puts them there when it loads a file, and twenty-six functions that each call the one before twice are
sixty million nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from onnx import AttributeProto, ModelProto, NodeProto

MOST_NODES = 1_000_000
"""A decoder of a hundred layers has 50,000."""

_Name = tuple[str, str, str]


def inlined_nodes(proto: ModelProto) -> int | None:
    """The nodes of the graph and of graphs in it, with those of functions at every call; None if calls go round."""
    bodies = {(each.domain, each.name, _overload(each)): each.node for each in proto.functions}
    counts: dict[_Name, int] = {}
    for name in bodies:
        if not _count(name, bodies, counts):
            return None
    return _sum(proto.graph.node, counts)


def _count(name: _Name, bodies: dict[_Name, Iterable[NodeProto]], counts: dict[_Name, int]) -> bool:
    """Counts the function and those that it calls; False if it calls itself. A stack of its own: chains are long."""
    stack, open_now = [name], set()
    while stack:
        top = stack[-1]
        if top in counts:
            stack.pop()
            continue
        missing = {called for each in _nodes(bodies[top]) if (called := _called(each)) in bodies} - counts.keys()
        if not missing:
            counts[top] = _sum(bodies[top], counts)
            open_now.discard(top)
            stack.pop()
        elif missing & (open_now | {top}):
            return False
        else:
            open_now.add(top)
            stack += missing
    return True


def _sum(nodes: Iterable[NodeProto], counts: dict[_Name, int]) -> int:
    return sum(1 + counts.get(_called(each), 0) for each in _nodes(nodes))


def _nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """The nodes and those of graphs within them."""
    for each in nodes:
        yield each
        for attribute in each.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _nodes(attribute.g.node)
            elif attribute.type == AttributeProto.GRAPHS:
                for graph in attribute.graphs:
                    yield from _nodes(graph.node)


def _called(node: NodeProto) -> _Name:
    return node.domain, node.op_type, _overload(node)


def _overload(value: object) -> str:
    return str(getattr(value, "overload", ""))  # since IR version 10
