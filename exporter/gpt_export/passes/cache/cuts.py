"""Where past and new tokens meet: the smallest keys and values of each attention."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from gpt_export.passes.cache.axes import BATCH, ROWS, TRIED, Axes, constant_size, is_constant
from gpt_export.passes.cache.interpreter import Meaning
from gpt_export.passes.cache.refusal import refuse

_MOVERS = frozenset({"Transpose", "Reshape", "Flatten", "Unsqueeze", "Squeeze", "Expand", "Identity", "Dropout"})


@dataclass(frozen=True, slots=True)
class Cut:
    """A value that is cached, with its heads and their width, and the factor that the keys behind it are scaled by."""

    value: ir.Value
    heads: int
    width: int
    factor: float = 1.0
    skipped: frozenset[ir.Node] = frozenset()
    """Scalings on the way from it to the product, which the query takes over."""


def find_cut(meaning: Meaning, node: ir.Node, operand: ir.Value, scaled: bool) -> Cut:
    """The smallest value behind `operand` from which it follows by moving entries and, for keys, by a scaling.

    Raises:
        CacheRefusedError: there is none with the batch and the positions on axes of their own.
    """
    best: tuple[tuple[int, int, int], Cut] | None = None
    value, factor, skipped, steps = operand, 1.0, frozenset[ir.Node](), 0
    while True:
        form = _form(meaning.facts[value].axes)
        if form is not None:
            quality, heads, width = form
            rank = (heads * width, quality, steps)
            if best is None or rank < best[0]:
                best = rank, Cut(value, heads, width, factor, skipped)
        producer = value.producer()
        source = None if producer is None else _source(meaning, producer, scaled)
        if source is None or producer is None:
            break
        value, scale = source
        steps += 1
        if scale is not None:
            factor, skipped = factor * scale, skipped | {producer}
    if best is None:
        raise refuse(node, "attends to keys or values whose positions are folded into another axis")
    return best[1]


def _source(meaning: Meaning, node: ir.Node, scaled: bool) -> tuple[ir.Value, float | None] | None:
    """The value that `node` moves or scales, and by what factor; None for any other node."""
    step = meaning.steps.get(node)
    if step is not None and step.alias is not None:
        node_input = node.inputs[step.alias]
        return None if node_input is None else (node_input, None)
    if node.op_type in _MOVERS:
        return (node.inputs[0], None) if node.inputs[0] is not None else None
    if not scaled or node.op_type not in ("Mul", "Div"):
        return None
    data = [value for value in node.inputs if value is not None and meaning.depends[value] == "data"]
    other = [value for value in node.inputs if value is not None and meaning.depends[value] != "data"]
    if len(data) != 1 or len(other) != 1 or (node.op_type == "Div" and node.inputs[0] is not data[0]):
        return None
    if prod(TRIED[0].shape(meaning.facts[other[0]].axes)) != 1:
        return None
    before = set(meaning.evaluator.unknown)
    number = float(np.asarray(meaning.evaluator.array(other[0], TRIED[0])).reshape(()))
    if (
        meaning.evaluator.unknown - before
        or number == 0
        or meaning.facts[data[0]].axes != meaning.facts[node.outputs[0]].axes
    ):
        return None
    return data[0], (number if node.op_type == "Mul" else 1 / number)


def _form(axes: Axes) -> tuple[int, int, int] | None:
    """How far `axes` is from (batch, heads, rows, width), its heads and its width; None if that is no way."""
    batch = [i for i, of in enumerate(axes) if BATCH in of]
    if len(batch) != 1 or axes.count((ROWS,)) != 1 or axes[batch[0]][0] != BATCH:
        return None
    folded = constant_size(axes[batch[0]][1:])
    rows = axes.index((ROWS,))
    constants = [i for i in range(len(axes)) if i not in (batch[0], rows)]
    if not all(is_constant(axes[i]) for i in constants) or not constants:
        return None
    width = constant_size(axes[constants[-1]])
    heads = folded * prod(constant_size(axes[i]) for i in constants[:-1])
    plain = batch[0] == 0 and folded == 1 and len(axes) == 4
    quality = 0 if plain and rows == 2 else 1 if plain and rows == 1 else 2 if rows == len(axes) - 2 else 3
    return quality, heads, width
