"""Tables of positions: a cached key keeps what it was given in its time, so row i must be the same at every length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from gpt_export.passes.cache.axes import Axes, Sizes, columns_of, holds_rows, is_plain
from gpt_export.passes.cache.interpreter import Meaning
from gpt_export.passes.cache.lengths import candidate_lengths, combined, probes
from gpt_export.passes.cache.refusal import CacheRefusedError, refuse

Array = np.ndarray[Any, Any]
MOST_NUMBERS = 1 << 23
"""Of a table or of scores, to be evaluated; what is larger is left to the gate, at the lengths that are reported."""


_MINIMUM = 4
"""A table that changes before this changes from the start."""


@dataclass(frozen=True, slots=True)
class Use:
    """A value of positions alone that meets data: at which node, and which of its axes are rows and columns."""

    node: ir.Node
    value: ir.Value
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @property
    def is_matrix(self) -> bool:
        """Whether it has rows and columns: a mask, or a bias for each pair of positions."""
        return bool(self.rows and self.columns)


def position_uses(meaning: Meaning) -> list[Use]:
    """Where positions meet data."""
    uses = []
    for node, step in meaning.steps.items():
        if step.alias is not None:
            continue
        for i, value in enumerate(node.inputs):
            if value is None or meaning.depends[value] != "positions" or i in step.written:
                continue
            rows, columns = _roles(meaning.facts[value].axes, step.outputs[0] if step.aligned else ())
            uses.append(Use(node, value, rows, columns))
    return uses


def _roles(axes: Axes, output: Axes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes of a value that meet rows, and those that meet columns, of an output that they align with."""
    aligned = [(i, output[len(output) - len(axes) + i]) for i in range(len(axes)) if output and axes[i]]
    return (
        tuple(i for i, of in aligned if holds_rows(of) and not is_plain(axes[i])),
        tuple(i for i, of in aligned if columns_of(of) and not is_plain(axes[i])),
    )


def check_tables(meaning: Meaning, uses: Sequence[Use], context_length: int | None) -> int | None:
    """The length up to which every table keeps its rows, None if that is any length that was looked at.

    Args:
        context_length: the length that is wanted; None where whatever is found is right.

    Raises:
        CacheRefusedError: a table changes with the length, from the start or before `context_length`.
    """
    limit: int | None = None
    done: set[ir.Value] = set()
    for use in uses:
        if use.value in done or (use.columns and not use.rows):  # keys' own are tried with the attention
            continue
        done.add(use.value)
        kept = _kept_up_to(meaning, use)
        if kept is not None and context_length is not None and kept < context_length:
            raise refuse(
                use.node, f"reads a table whose rows change with the length of the text where that is above {kept}"
            )
        limit = kept if limit is None else min(limit, kept or limit)
    return limit


def _kept_up_to(meaning: Meaning, use: Use) -> int | None:
    good, bad = 1, None
    for length in _lengths(meaning, use):
        if not _keeps(meaning, use.value, good, length):
            bad = length
            break
        good = length
    if bad is None:
        return None
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if _keeps(meaning, use.value, good, middle) else (good, middle)
    if good < _MINIMUM:
        raise refuse(use.node, "reads a table of positions whose rows change with the length of the whole text")
    return good


def _keeps(meaning: Meaning, value: ir.Value, short: int, long: int) -> bool:
    """Whether the first rows are the same at both lengths; not so where a table has ended."""
    before, after = _at(meaning, value, short), _at(meaning, value, long)
    return before is not None and after is not None and _is_prefix(before, after)


def _lengths(meaning: Meaning, use: Use) -> list[int]:
    axes = meaning.facts[use.value].axes
    found = []
    values = [use.value]
    candidates = combined(meaning, values) if use.columns else candidate_lengths(meaning, values)
    for length in probes(candidates, meaning.longest):
        if int(np.prod(Sizes(1, length).shape(axes), dtype=np.int64)) * (length if not use.rows else 1) > MOST_NUMBERS:
            break
        found.append(length)
    return found


def _at(meaning: Meaning, value: ir.Value, length: int) -> Array | None:
    """The value at a length, None where a table of it has ended."""
    sizes = Sizes(1, length)
    try:
        array = meaning.evaluator.array(value, sizes)
    except CacheRefusedError:
        if length <= _MINIMUM:
            raise
        return None
    finally:
        meaning.evaluator.forget_large(sizes)
    return array if array.shape == sizes.shape(meaning.facts[value].axes) else None


def _is_prefix(short: Array, long: Array) -> bool:
    part = long[tuple(slice(0, size) for size in short.shape)]
    return part.shape == short.shape and bool(np.allclose(short, part, equal_nan=True, rtol=1e-6, atol=0))
