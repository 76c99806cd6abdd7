"""Names of a scripted graph that depend on its module alone, and not on what the process compiled before.

torch compiles modules of one kind once, and writes into what it compiled when it exports; and it names the parts of a
ModuleList by the list only if that is the first kind of ModuleList in the process. So each module is compiled for
itself, no list is the first, and the lists' names are put in here.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from functools import cache
from typing import Any

import onnx_ir as ir
import torch
from torch import nn

_compiling = threading.RLock()


class _Apart(torch.jit._recursive.ConcreteTypeStore):
    """Compiles every part for itself, those of one kind too."""

    def get_or_create_concrete_type(self, nn_module: nn.Module) -> Any:
        self.type_store.pop(type(nn_module), None)
        return super().get_or_create_concrete_type(nn_module)  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def types_of_its_own(*, apart: bool) -> Iterator[None]:
    """Inside, what is scripted shares no compiled type with anything else; one thread at a time.

    Args:
        apart: nor do the parts of one module, which costs time for each of them. When torch exports it writes into what
            it compiled: of parts that share a type only the first keeps the names of what is in it.
    """
    with _compiling:
        _take_the_first_list()
        recursive = torch.jit._recursive
        shared = recursive.concrete_type_store
        recursive.concrete_type_store = (_Apart if apart else recursive.ConcreteTypeStore)()
        try:
            yield
        finally:
            recursive.concrete_type_store = shared


@cache
def _take_the_first_list() -> None:
    torch.jit.script(nn.ModuleList([nn.Identity()]))


def name_lists(model: ir.Model, module: torch.jit.ScriptModule) -> None:
    """Writes the path of a ModuleList in front of its parts' numbers, in the names of nodes and of what they give.

    That is `/blocks.0/norm/Mul` for `/0/norm/Mul`, as torch itself has it for the first list that it sees. Where two
    lists have parts of that number and of what lies below, the name stays as it is.
    """
    scopes: dict[tuple[str, ...], tuple[str, ...]] = {}

    def renamed(name: str | None) -> str | None:
        if not name or not name.startswith("/"):
            return name
        *scope, last = name[1:].split("/")
        if not scope:
            return name
        key = tuple(scope)
        if key not in scopes:
            scopes[key] = _full(module, key)
        return "/".join(["", *scopes[key], last])

    for node in model.graph.all_nodes():
        node.name = renamed(node.name)
        for value in node.outputs:
            if not value.is_graph_output():
                value.name = renamed(value.name)


def _full(module: nn.Module, scope: tuple[str, ...]) -> tuple[str, ...]:
    """`scope` in full, where it is the path of one part alone; else as it is."""
    found = list(_paths(module, scope))
    return found[0] if len(found) == 1 else scope


def _paths(module: nn.Module, scope: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if not scope:
        yield ()
        return
    name, *rest = scope
    children = dict(module.named_children())
    held = {name: children[name]} if name in children else dict(_in_lists(module, ""))
    for path, part in held.items():
        if name in (path, path.rpartition(".")[2]):
            yield from ((path, *further) for further in _paths(part, tuple(rest)))


def _in_lists(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        if getattr(child, "original_name", type(child).__name__) == "ModuleList":
            for number, part in child.named_children():
                yield f"{path}{name}.{number}", part
            yield from _in_lists(child, f"{path}{name}.")
