"""Operators that write into their input, replaced by those that return a new tensor."""

from __future__ import annotations

import copy
import operator
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

_ATEN = torch.ops.aten
_RETURNS_INPUT = frozenset({_ATEN.dropout.default, _ATEN.feature_dropout.default, _ATEN.alpha_dropout.default})
"""Operators that may return their input itself without saying so in their schema."""


class NotLocalError(Exception):
    """A program that cannot be changed node by node."""


def without_mutation(program: ExportedProgram) -> fx.Graph:
    """A copy of the program's graph in which no operator writes into its input.

    `y = f_(x)` becomes `y = f(x)`, and what read x afterwards reads y. That is the same as long as no other name of
    x's memory is read afterwards, and the memory is not a weight's or an input's.

    Raises:
        NotLocalError: it is not the same somewhere, or the graph has other graphs inside.
    """
    graph = copy_of(program.graph)
    if any(node.op == "get_attr" for node in graph.nodes):
        raise NotLocalError("the program has graphs inside")
    order = {node: i for i, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        if _mutates(node):
            _replace_in_place(node, _bases(graph), order)
    return graph


def copy_of(graph: fx.Graph) -> fx.Graph:
    """A copy of `graph` whose nodes have the names and the facts of the originals."""
    copied = fx.Graph(tracer_cls=graph._tracer_cls)
    copies: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        copies[node] = copied.node_copy(node, lambda arg: copies[arg])
        copies[node].meta = copy.copy(node.meta)
    copied._codegen = copy.deepcopy(graph._codegen)
    return copied


def _mutates(node: fx.Node) -> bool:
    target = node.target
    return (
        isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable and target is not _ATEN.detach_.default
    )


def _bases(graph: fx.Graph) -> dict[fx.Node, fx.Node]:
    """For each node, the one whose memory it may share: itself, if it has its own."""
    bases: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        shared = _shares_with(node)
        bases[node] = node if shared is None else bases[shared]
    return bases


def _shares_with(node: fx.Node) -> fx.Node | None:
    """The input of `node` whose memory its result, or a part of it, may be; None if its memory is its own."""
    target = node.target
    if target is operator.getitem:
        source = node.args[0]
        return source if isinstance(source, fx.Node) and _shares_with(source) is not None else None
    if not isinstance(target, torch._ops.OpOverload):
        return None
    if target in _RETURNS_INPUT:
        return node.all_input_nodes[0]
    arguments = zip(target._schema.arguments, node.args, strict=False)
    return next((arg for spec, arg in arguments if spec.alias_info and isinstance(arg, fx.Node)), None)


def _replace_in_place(node: fx.Node, bases: dict[fx.Node, fx.Node], order: dict[fx.Node, int]) -> None:
    written = node.args[0]
    functional = _functional(node)
    if functional is None or not isinstance(written, fx.Node):
        raise NotLocalError(f"{node.target} has no form without writing")
    base = bases[written]
    if base.op != "call_function":
        raise NotLocalError(f"{node.target} writes into {base.op} {base.name}")
    for other, its_base in bases.items():
        if its_base is base and other not in (written, node) and any(order[u] > order[node] for u in other.users):
            raise NotLocalError(f"{node.target} writes into memory that {other.name} shares")
    before: Any = written.meta.get("val")
    node.target = functional
    after = _value(node)
    if after.dtype != before.dtype or after.shape != before.shape:
        raise NotLocalError(f"{functional} would not keep type and shape")
    written.replace_all_uses_with(node, delete_user_cb=lambda user: order[user] > order[node])


def _functional(node: fx.Node) -> Any:
    """The overload without the trailing underscore that takes the same arguments; None if there is none."""
    name, overload = str(node.target).split(".")[1:]
    packet = getattr(_ATEN, name.removesuffix("_"), None)
    found = getattr(packet, overload, None) if name.endswith("_") and not name.endswith("__") else None
    if found is None or found._schema.is_mutable:
        return None
    same = [arg.name for arg in found._schema.arguments] == [arg.name for arg in node.target._schema.arguments]  # type: ignore[union-attr]
    return found if same else None


def _value(node: fx.Node) -> torch.Tensor:
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda arg: arg.meta["val"])
    value = next(
        arg.meta["val"] for arg in node.all_input_nodes if isinstance(arg.meta["val"], torch._subclasses.FakeTensor)
    )
    with value.fake_mode:
        result: torch.Tensor = node.target(*args, **kwargs)  # type: ignore[operator]
    return result
