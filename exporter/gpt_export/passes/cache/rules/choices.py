"""Entries that the data choose: taken out by the places that NonZero tells, and put back where they were.

An expert keeps the tokens that chose it apart if each returns to the place that it came from. A place counts new tokens
alone, so nothing else may be made of it: what is computed with places is tried on numbers, and must be a place of the
same entry in an array of another shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np
import onnx_ir as ir

from gpt_export.passes.cache.axes import (
    BATCH,
    ROWS,
    TRIED,
    Axes,
    Axis,
    Chosen,
    Sizes,
    axis,
    chosen_of,
    columns_of,
    constant_axes,
    constant_size,
    is_constant,
)
from gpt_export.passes.cache.evaluate import Array
from gpt_export.passes.cache.facts import Step
from gpt_export.passes.cache.rules.reading import Choice, Reading, Rule

_ELSEWHERE = (
    "takes entries by other places than those of what the ids choose",
    "puts entries by other places, or others, than the ids choose",
)
_INDEX = 1
"""The input that holds places, of an operator that takes or puts entries."""


def nonzero(reading: Reading) -> Step:
    """(rank, chosen): the places of the entries that are not zero."""
    given, axes = reading.node.inputs[0], reading.axes()
    assert given is not None
    if any(columns_of(of) or chosen_of(of) for of in axes):
        raise reading.refuse("chooses among the positions that a row looks at")
    mask, rank = _not_repeated(reading, given)
    choices = reading.found.choices
    number = next((i for i, choice in enumerate(choices) if choice.mask is mask), len(choices))
    if number == len(choices):
        choices.append(Choice(mask, axes[:rank]))
    told = reading.node.outputs[0]
    choices[number].told[told] = axes[rank:]
    same = (value for value, repeated in choices[number].told.items() if repeated == axes[rank:])
    reading.found.places[told] = next(same)
    count = axis(Chosen(number), *(atom for of in axes[rank:] for atom in of))
    return Step(((*constant_axes([len(axes)]), count),))


def _not_repeated(reading: Reading, given: ir.Value) -> tuple[ir.Value, int]:
    """The mask that `given` repeats along constant axes behind its own, and how many are its own."""
    axes = reading.facts[given].axes
    mask, rank = given, len(axes)
    node = given.producer()
    while node is not None and node.op_type in ("Expand", "Unsqueeze") and node.inputs[0] is not None:
        source = node.inputs[0]
        own = list(reading.facts[source].axes)
        while own and not own[-1]:
            own.pop()
        if tuple(own) != axes[: len(own)] or not all(is_constant(of) for of in axes[len(own) :]):
            break
        mask, rank = source, len(own)
        node = source.producer()
    return mask, rank


def with_places(reading: Reading, rule: Rule) -> Step:
    """The step of a node that reads places, by its own rule where it only makes others of them.

    Raises:
        CacheRefusedError: it sets places against data, or takes entries from elsewhere.
    """
    places, inputs = reading.found.places, reading.node.inputs
    told = [i for i, value in enumerate(inputs) if value in places]
    others = [i for i in range(len(inputs)) if reading.is_data(i) and i not in told]
    if told == [_INDEX] and reading.node.op_type in _BY_PLACE and (others or not _is_of_places(reading)):
        return _BY_PLACE[reading.node.op_type](reading)
    sources = {places[value] for value in inputs if value is not None and value in places}
    if others or len(sources) > 1:
        raise reading.refuse("computes with the places of what the ids choose")
    step = rule(reading)
    places.update(dict.fromkeys(reading.node.outputs, *sources))
    return step


def _is_of_places(reading: Reading) -> bool:
    """Whether what is indexed is a number of places, a constant size, and no table of data."""
    return not reading.is_data(0) and not chosen_of(reading.axes(_INDEX)[0])


def gather(reading: Reading) -> Step:
    axes, index = reading.axes(0), reading.axes(_INDEX)
    at = reading.attribute("axis", 0) % len(axes)
    _check_places(reading, [axes[at]], lambda places, _: places[0])
    return Step(((*axes[:at], *index, *axes[at + 1 :]),), taken_from=0)


def gather_nd(reading: Reading) -> Step:
    axes, index, depth = _by_columns(reading)
    return Step(((*index[:-1], *axes[depth:]),), taken_from=0)


def scatter_nd(reading: Reading) -> Step:
    axes, index, depth = _by_columns(reading)
    _check_updates(reading, (*index[:-1], *axes[depth:]))
    return Step((axes,), aligned=True, full=True)


def scatter_elements(reading: Reading) -> Step:
    axes, index = reading.axes(0), reading.axes(_INDEX)
    at = reading.attribute("axis", 0) % len(axes)

    def everywhere(places: Sequence[Array], sizes: Sizes) -> Array:
        column = places[0].reshape([-1 if i == at else 1 for i in range(len(axes))])
        return np.broadcast_to(column, sizes.shape(index))

    _check_places(reading, [axes[at]], everywhere)
    _check_updates(reading, (*axes[:at], index[at], *axes[at + 1 :]))
    return Step((axes,), aligned=True, full=True)


def elsewhere(reading: Reading) -> Step:
    """ScatterND by an index that is no place of what was chosen.

    Raises:
        CacheRefusedError: always.
    """
    raise reading.refuse("puts entries into some positions and leaves others")


def _by_columns(reading: Reading) -> tuple[Axes, Axes, int]:
    """What is indexed, its index (…, depth), and the depth, of GatherND and ScatterND."""
    axes, index = reading.axes(0), reading.axes(_INDEX)
    depth = constant_size(index[-1])
    if reading.attribute("batch_dims", 0):
        raise reading.refuse("takes entries row by row")
    _check_places(reading, axes[:depth], lambda places, _: np.stack(places, axis=-1))
    return axes, index, depth


def _check_places(reading: Reading, taken: Sequence[Axis], form: Callable[[Sequence[Array], Sizes], Array]) -> None:
    """Refuses an index that is not, at any sizes, the places of what was chosen, along the axes that are `taken`.

    The batch and the positions must be among them: what is put by its feature alone sums over tokens, and what is taken
    so meets those of others. Only of a table that is the same for all may features alone be looked up.
    """
    index = reading.node.inputs[_INDEX]
    assert index is not None
    source = reading.found.places[index]
    number, choice = next((i, one) for i, one in enumerate(reading.found.choices) if source in one.told)
    axes = (*choice.axes, *choice.told[source])
    tokens = {i for i, of in enumerate(axes) if BATCH in of or ROWS in of}
    candidates = [
        groups for groups in product(*(list(_groups(axes, of)) for of in taken))
        if _is_table(reading) or tokens <= {i for group in groups for i in group}
    ]  # fmt: skip
    for sizes in TRIED:
        chosen = _some_places(choice.axes, sizes.of((Chosen(number),)), sizes)
        given = {value: _repeated(chosen, sizes.shape(repeated)) for value, repeated in choice.told.items()}
        places = given[source]
        found = reading.evaluator.array(index, sizes, given)
        candidates = [
            groups for groups in candidates
            if np.array_equal(found, form([_in_one(places, axes, group, sizes) for group in groups], sizes))
        ]  # fmt: skip
    if not candidates:
        raise reading.refuse(_ELSEWHERE[reading.node.op_type.startswith("Scatter")])


def _is_table(reading: Reading) -> bool:
    fact = reading.fact(0)
    return reading.node.op_type.startswith("Gather") and fact is not None and fact.depends == "nothing"


def _some_places(axes: Axes, count: int, sizes: Sizes) -> Array:
    """int64 (rank, count): as NonZero tells them, of entries of a mask of `axes` at random."""
    random = np.random.default_rng(count)
    return np.stack([random.integers(0, sizes.of(of), count) for of in axes])


def _repeated(places: Array, shape: Sequence[int]) -> Array:
    """The places of every entry behind each of `places`, where a mask is repeated to `shape`."""
    inner = np.indices(shape).reshape(len(shape), math.prod(shape))
    outer = np.repeat(places, inner.shape[1], axis=1)
    return np.concatenate((outer, np.tile(inner, places.shape[1])))


def _groups(axes: Axes, of: Axis) -> Iterator[range]:
    """Which neighbouring axes of a mask make up the axis `of` of another array."""
    for start in range(len(axes)):
        for stop in range(start + 1, len(axes) + 1):
            if axis(*(atom for each in axes[start:stop] for atom in each)) == of:
                yield range(start, stop)


def _in_one(places: Array, axes: Axes, group: range, sizes: Sizes) -> Array:
    """The places along neighbouring axes in one number."""
    found: Array = np.ravel_multi_index([places[i] for i in group], [sizes.of(axes[i]) for i in group])
    return found


def _check_updates(reading: Reading, wanted: Axes) -> None:
    if reading.axes(2) != wanted:
        raise reading.refuse(_ELSEWHERE[True])


_BY_PLACE: dict[str, Rule] = {
    "Gather": gather,
    "GatherND": gather_nd,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
}
RULES: dict[str, Rule] = {"NonZero": nonzero, "ScatterND": elsewhere}
