"""Keys and values as the cache holds them, (batch, heads, positions, width), and back to what a graph reads."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from gpt_export.passes.cache.axes import BATCH, ROWS, Axes, Axis, axis
from gpt_export.passes.cache.cuts import Cut
from gpt_export.passes.cache.dims import Writing


@dataclass(frozen=True, slots=True)
class Form:
    """The two steps between a value's own axes and those of the cache."""

    own: Axes
    apart: Axes
    """The own axes, heads that are folded into the batch set apart."""
    perm: tuple[int, ...]
    moved: Axes
    cached: Axes


def form_of(axes: Axes, cut: Cut, folded: bool) -> Form:
    """How a value of `axes` becomes (batch, heads, rows, width), or (batch, 1, rows, heads * width) where `folded`."""
    apart: list[Axis] = []
    for of in axes:
        if of and of[0] == BATCH:
            apart.append((BATCH,))
            if of[1:]:
                apart.append(of[1:])
        else:
            apart.append(of)
    batch, rows = apart.index((BATCH,)), apart.index((ROWS,))
    others = [i for i in range(len(apart)) if i not in (batch, rows)]
    perm = (batch, rows, *others) if folded else (batch, *others[:-1], rows, others[-1])
    heads, width = (1, cut.heads * cut.width) if folded else (cut.heads, cut.width)
    moved = tuple(apart[i] for i in perm)
    return Form(axes, tuple(apart), perm, moved, ((BATCH,), axis(heads), (ROWS,), axis(width)))


def to_cached(writing: Writing, value: ir.Value, form: Form, name: str) -> ir.Value:
    """New keys or values, (batch, heads, new, width)."""
    made = writing.reshape(value, form.own, form.apart, "new", f"{name}/apart")
    if form.perm != tuple(range(len(form.perm))):
        made = writing.node("Transpose", [made], f"{name}/heads_first", {"perm": form.perm})
    return writing.reshape(made, form.moved, form.cached, "new", f"{name}/new")


def from_cached(writing: Writing, value: ir.Value, form: Form, name: str) -> ir.Value:
    """All keys or values in the form of the plain graph, its positions past and new ones."""
    made = writing.reshape(value, form.cached, form.moved, "total", f"{name}/moved")
    if form.perm != tuple(range(len(form.perm))):
        back = tuple(form.perm.index(i) for i in range(len(form.perm)))
        made = writing.node("Transpose", [made], f"{name}/as_before", {"perm": back})
    return writing.reshape(made, form.apart, form.own, "total", f"{name}/whole")


def taken_apart(writing: Writing, present: ir.Value, sizes: list[int], along: int, name: str) -> list[ir.Value]:
    """The cuts that lie side by side in a cache."""
    if len(sizes) == 1:
        return [present]
    places = writing.constant([along])
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [
        writing.node("Slice", [present, writing.constant([a]), writing.constant([a + size]), places], f"{name}/part")
        for a, size in zip(starts, sizes, strict=True)
    ]


def put_together(writing: Writing, parts: list[ir.Value], along: int, name: str) -> ir.Value:
    """Cuts side by side."""
    return parts[0] if len(parts) == 1 else writing.node("Concat", parts, f"{name}/parts", {"axis": along})
