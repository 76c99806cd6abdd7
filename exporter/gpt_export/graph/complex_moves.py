"""Operators that move complex numbers about, on pairs of real ones, for which torch has ONNX forms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

_ATEN = torch.ops.aten
_AXIS: dict[Any, int] = {
    _ATEN.unsqueeze.default: 1,
    _ATEN.select.int: 1,
    _ATEN.index_select.default: 1,
    _ATEN.sym_size.int: 1,
}
"""Those that name an axis, and which argument that is; torch has forms of the others that do for complex numbers."""
_SIZES: dict[Any, int] = {_ATEN.expand.default: 1, _ATEN.repeat.default: 1}
"""Those that name a size for each axis."""
_ROWS = frozenset({_ATEN.index.Tensor, _ATEN.embedding.default})
"""Those that take whole rows, whatever is in them."""


def moves_complex(node: fx.Node) -> bool:
    """Whether `node` is one of these operators, on complex numbers."""
    if node.target not in _AXIS and node.target not in _SIZES and node.target not in _ROWS:
        return False
    return _is_complex(node.args[0])


def on_pairs(node: fx.Node) -> None:
    """Makes `node` move pairs, the last axis of each (real, imaginary): the same numbers, in the place that it had."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    graph = node.graph
    args: list[Any] = list(node.args)
    rank = source.meta["val"].ndim
    with graph.inserting_before(node):
        args[0] = _call(graph, node, _ATEN.view_as_real.default, source)
        if (place := _AXIS.get(node.target)) is not None and args[place] < 0:
            args[place] += rank + (node.target is _ATEN.unsqueeze.default)
        if (place := _SIZES.get(node.target)) is not None:
            args[place] = [*args[place], 2 if node.target is _ATEN.expand.default else 1]
        moved = _call(graph, node, node.target, *args)
        if isinstance(moved.meta["val"], Tensor):
            moved = _call(graph, node, _ATEN.view_as_complex.default, moved)
    node.replace_all_uses_with(moved)
    graph.erase_node(node)


def _is_complex(value: Any) -> bool:
    held = value.meta.get("val") if isinstance(value, fx.Node) else None
    return isinstance(held, Tensor) and held.is_complex()


def _call(graph: fx.Graph, like: fx.Node, target: Any, *args: Any) -> fx.Node:
    """A new node with what torch notes of one: its value, and the place in the module that `like` has."""
    made = graph.call_function(target, args)
    made.meta = {key: like.meta[key] for key in ("nn_module_stack", "stack_trace") if key in like.meta}
    values = fx.node.map_arg(args, lambda arg: arg.meta["val"])
    given = (arg.meta["val"] for arg in made.all_input_nodes)
    with next(value for value in given if isinstance(value, torch._subclasses.FakeTensor)).fake_mode:
        made.meta["val"] = target(*values)
    return made
