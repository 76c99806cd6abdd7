"""What makes a cache the same model, found by evaluating it: tables that keep their rows, attention that keeps its past.

A cached key keeps what it was given in its own time, and a new row is computed alone. That is right only if row i of
every table is the same at every length; if what a row attends to does not change when later tokens come; and if it
depends on how far tokens are apart alone, so that rows that are padded on the left may count slots for positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from gpt_export.passes.cache.axes import ROWS, Axes, Columns, Sizes, columns_of, holds_rows
from gpt_export.passes.cache.cuts import Attention
from gpt_export.passes.cache.interpreter import Meaning
from gpt_export.passes.cache.lengths import candidate_lengths, probes
from gpt_export.passes.cache.refusal import CacheRefusal, refuse

Array = np.ndarray[Any, Any]
_MOST_NUMBERS = 1 << 23
"""Of a table or of scores, to be evaluated; what is larger is left to the gate, at the lengths that are reported."""
_HIDDEN = -3e4
_CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@dataclass(frozen=True, slots=True)
class Use:
    """A value of positions alone that meets data: at which node, and which of its axes are rows and columns."""

    node: ir.Node
    value: ir.Value
    rows: tuple[int, ...]
    columns: tuple[int, ...]


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
        tuple(i for i, of in aligned if holds_rows(of)),
        tuple(i for i, of in aligned if columns_of(of)),
    )


def check_tables(meaning: Meaning, uses: Sequence[Use]) -> int | None:
    """The length up to which every table keeps its rows, None if that is any length that was looked at.

    Raises:
        CacheRefusal: a table changes with the length from the start.
    """
    limit: int | None = None
    done: set[ir.Value] = set()
    for use in uses:
        if use.value in done:
            continue
        done.add(use.value)
        kept = _kept_up_to(meaning, use)
        limit = kept if limit is None else min(limit, kept or limit)
    return limit


def _kept_up_to(meaning: Meaning, use: Use) -> int | None:
    before: Array | None = None
    last = 1
    for length in _lengths(meaning, use):
        array = _at(meaning, use.value, length)
        if array is None:
            return last  # the table ends here
        if before is not None and not _is_prefix(before, array):
            if last < 13:
                raise refuse(use.node, "reads a table of positions whose rows change with the length of the whole text")
            return last
        before, last = array, length
    return None


def _lengths(meaning: Meaning, use: Use) -> list[int]:
    axes = meaning.facts[use.value].axes
    found = []
    for length in probes(candidate_lengths(meaning, [use.value]), 1 << 20):
        if int(np.prod(Sizes(1, length).shape(axes), dtype=np.int64)) * (length if not use.rows else 1) > _MOST_NUMBERS:
            break
        found.append(length)
    return found


def _at(meaning: Meaning, value: ir.Value, length: int) -> Array | None:
    """The value at a length, None where a table of it has ended."""
    sizes = Sizes(1, length)
    try:
        array = meaning.evaluator.array(value, sizes)
    except CacheRefusal:
        if length <= 13:
            raise
        return None
    finally:
        meaning.evaluator.forget_large(sizes)
    return array if array.shape == sizes.shape(meaning.facts[value].axes) else None


def _is_prefix(short: Array, long: Array) -> bool:
    part = long[tuple(slice(0, size) for size in short.shape)]
    return part.shape == short.shape and bool(np.allclose(short, part, equal_nan=True, rtol=1e-6, atol=0))


def check_attention(meaning: Meaning, attention: Attention, uses: Sequence[Use]) -> None:
    """Tries the way from scores to weights on random scores.

    Raises:
        CacheRefusal: later tokens change what a row attends to, or it depends on more than distances.
    """
    chain = _Chain(meaning, attention, uses)
    small, large = 7, 13
    pairs = [(small, large)]
    for candidate in sorted(chain.candidates()):
        if chain.fits(candidate + 4):
            pairs.append((max(2, candidate - 3), candidate + 4))
    for short, long in pairs:
        _check_lengths(meaning, attention, chain, short, long)


def _check_lengths(meaning: Meaning, attention: Attention, chain: _Chain, short: int, long: int) -> None:
    random = np.random.default_rng(long)
    inputs = {
        value: random.standard_normal(Sizes(1, long).shape(meaning.facts[value].axes)) * 2 for value in chain.leaves
    }
    whole = chain.weights(inputs, long)
    if whole is None:
        return
    later = np.triu(np.ones((long, long), bool), 1)
    shape = [1] * whole.ndim
    shape[chain.row], shape[chain.column] = long, long
    later = later if chain.row < chain.column else later.T
    if np.any(np.where(later.reshape(shape), whole, 0) != 0):
        raise refuse(attention.softmax, "lets tokens look at later ones, so what is cached would change")
    first = chain.weights(chain.part(inputs, slice(0, short)), short)
    if first is not None and not np.allclose(first, chain.block(whole, slice(0, short)), **_CLOSE):
        raise refuse(attention.softmax, "weights tokens differently when later ones come")
    padding = long - short
    padded = chain.weights(inputs, long, padding)
    alone = chain.weights(chain.part(inputs, slice(padding, long)), short)
    if padded is None or alone is None:
        return
    if not np.allclose(alone, chain.block(padded, slice(padding, long)), **_CLOSE):
        raise refuse(attention.softmax, "weights tokens by where they are in the text, not by how far apart they are")


class _Chain:
    """What lies between the scores of an attention and the product with its values."""

    def __init__(self, meaning: Meaning, attention: Attention, uses: Sequence[Use]) -> None:
        self._meaning = meaning
        self._softmax = attention.softmax
        place = meaning.found.mixes[attention.mix][1]
        weights = attention.mix.inputs[1 - place]
        assert weights is not None
        self._weights = weights
        self.nodes, self.leaves = _between(meaning, weights)
        self._tables = [use for use in uses if use.node in self.nodes]
        axes = meaning.facts[weights].axes
        self.row = next(i for i, of in enumerate(axes) if of == (ROWS,))
        self.column = next(i for i, of in enumerate(axes) if columns_of(of))
        self._heads = max(1, int(np.prod(Sizes(1, 1).shape(axes))))

    def candidates(self) -> set[int]:
        """Lengths at which what lies between may do something new."""
        return candidate_lengths(self._meaning, [use.value for use in self._tables])

    def fits(self, length: int) -> bool:
        """Whether scores of that length are few enough to try."""
        return length * length * self._heads <= _MOST_NUMBERS

    def weights(self, inputs: dict[ir.Value, Array], length: int, padding: int = 0) -> Array | None:
        """What the values are multiplied by; None where a table has ended before `length`."""
        meaning = self._meaning
        sizes = Sizes(1, length)
        given: dict[ir.Value, Array] = {value: array.astype(np.float32) for value, array in inputs.items()}
        try:
            if padding:
                for use in self._tables:
                    if use.rows and not use.columns:
                        table = meaning.evaluator.array(use.value, sizes)
                        given[use.value] = np.roll(table, padding, axis=use.rows[0])
            source, output = self._softmax.inputs[0], self._softmax.outputs[0]
            assert source is not None
            scores = meaning.evaluator.array(source, sizes, given)
            hidden = np.zeros(sizes.shape(meaning.facts[source].axes)[self._softmax_column()], np.float32)
            columns = columns_of(meaning.facts[source].axes[self._softmax_column()])
            front = columns.front if columns else 0
            hidden[front : front + padding] = _HIDDEN
            shape = [1] * scores.ndim
            shape[self._softmax_column()] = len(hidden)
            given[output] = meaning.evaluator.run(self._softmax, [scores + hidden.reshape(shape)])[0]
            return meaning.evaluator.array(self._weights, sizes, given)
        except CacheRefusal:
            if length <= 13:
                raise
            return None
        finally:
            meaning.evaluator.forget_large(sizes)

    def _softmax_column(self) -> int:
        axes = self._meaning.facts[self._softmax.outputs[0]].axes
        return next(i for i, of in enumerate(axes) if columns_of(of))

    def part(self, inputs: dict[ir.Value, Array], of: slice) -> dict[ir.Value, Array]:
        """The inputs of some of the tokens."""
        parts = {}
        for value, array in inputs.items():
            axes = self._meaning.facts[value].axes
            index = [of if each == (ROWS,) or _is_columns(each) else slice(None) for each in axes]
            parts[value] = array[tuple(index)]
        return parts

    def block(self, weights: Array, of: slice) -> Array:
        """Rows and columns of some of the tokens."""
        index = [slice(None)] * weights.ndim
        index[self.row], index[self.column] = of, of
        return weights[tuple(index)]


def _is_columns(of: Any) -> bool:
    return len(of) == 1 and isinstance(of[0], Columns)


def _between(meaning: Meaning, weights: ir.Value) -> tuple[set[ir.Node], list[ir.Value]]:
    """The nodes behind `weights` that see columns, and the data that they start from."""
    products = {product.node for product in meaning.found.products}
    nodes: set[ir.Node] = set()
    leaves: list[ir.Value] = []
    stack, seen = [weights], {weights}
    while stack:
        value = stack.pop()
        node = value.producer()
        sees = any(columns_of(of) for of in meaning.facts[value].axes)
        if node is None or node in products or not sees:
            leaves.append(value)
            continue
        nodes.add(node)
        new = [
            each for each in node.inputs if each is not None and each not in seen and meaning.depends[each] == "data"
        ]
        seen.update(new)
        stack.extend(new)
    return nodes, leaves
