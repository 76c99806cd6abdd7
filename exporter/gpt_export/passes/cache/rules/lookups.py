"""Operators that take entries by index."""

from __future__ import annotations

from collections.abc import Sequence

from gpt_export.passes.cache.axes import ROWS, TRIED, Axis, constant_size, is_constant
from gpt_export.passes.cache.facts import Step
from gpt_export.passes.cache.rules.reading import Reading, Rule


def gather(reading: Reading) -> Step:
    """Rows of a table, or features by constant indices; positions cannot be picked."""
    axes, index = reading.axes(0), reading.axes(1)
    place = reading.attribute("axis", 0) % len(axes)
    if not is_constant(axes[place]):
        return _picked(reading, place)
    others = (*axes[:place], *axes[place + 1 :])
    if not all(is_constant(of) for of in index) and not all(is_constant(of) for of in others):
        raise reading.refuse("takes features by an index that depends on positions")
    return Step(((*axes[:place], *index, *axes[place + 1 :]),))


def _picked(reading: Reading, place: int) -> Step:
    """Some entries of the batch or the sequence by constant indices: of these, only the last position may be read."""
    axes, index = reading.axes(0), reading.axes(1)
    refusal = reading.refuse("takes some positions and leaves others")
    if reading.is_data(1):
        raise refusal
    if axes[place] == (ROWS,) and index == ((),) and is_last(reading.numbers(1), axes[place]):
        return Step((axes,), alias=0, last=True)
    return Step(((*axes[:place], *index, *axes[place + 1 :]),), unread=refusal)


def is_last(numbers: Sequence[Sequence[int]] | None, of: Axis) -> bool:
    """Whether `numbers`, at the sizes of `TRIED`, are the place of the last entry."""
    return numbers is not None and all(
        list(each) in ([-1], [sizes.of(of) - 1]) for each, sizes in zip(numbers, TRIED, strict=True)
    )


def gather_nd(reading: Reading) -> Step:
    """Rows of a table by indices that the data choose (experts' weights), or the last position."""
    axes, index = reading.axes(0), reading.axes(1)
    depth = constant_size(index[-1])
    if reading.attribute("batch_dims", 0):
        raise reading.refuse("takes entries row by row")
    if depth == 1 and axes[0] == (ROWS,) and index[:-1] == ((),) and is_last(reading.numbers(1), axes[0]):
        return Step((axes,), alias=0, last=True)
    if not all(is_constant(of) for of in axes[:depth]):
        raise reading.refuse("takes some positions and leaves others")
    if reading.is_data(1) and not all(is_constant(of) for of in axes):
        raise reading.refuse("takes features by an index that depends on positions")
    return Step(((*index[:-1], *axes[depth:]),))


def top(reading: Reading) -> Step:
    axes = list(reading.axes())
    place = reading.attribute("axis", -1) % len(axes)
    if not is_constant(axes[place]):
        raise reading.refuse("ranks positions")
    count = reading.fixed(1)
    assert count is not None
    axes[place] = (count[0],) if count[0] != 1 else ()
    return Step((tuple(axes),) * 2)


def one_hot(reading: Reading) -> Step:
    depth = reading.fixed(1)
    assert depth is not None
    axes = list(reading.axes())
    place = reading.attribute("axis", -1) % (len(axes) + 1)
    axes.insert(place, (depth[0],))
    return Step((tuple(axes),))


def by_entry(reading: Reading) -> Step:
    """GatherElements and ScatterElements: along features, everything else entry by entry."""
    data, index = reading.axes(0), reading.axes(1)
    place = reading.attribute("axis", 0) % len(data)
    if not is_constant(data[place]) or not is_constant(index[place]):
        raise reading.refuse("takes some positions and leaves others")
    for i in range(len(data)):
        if i != place and any(sizes.of(data[i]) != sizes.of(index[i]) for sizes in TRIED):
            raise reading.refuse("combines axes of different meaning")
    lead = data if reading.is_data(0) else index
    axes = tuple(data[place] if i == place else of for i, of in enumerate(lead))
    output = axes if reading.node.op_type == "ScatterElements" else (*axes[:place], index[place], *axes[place + 1 :])
    return Step((output,), aligned=True, full=True)


RULES: dict[str, Rule] = {
    "Gather": gather,
    "GatherND": gather_nd,
    "TopK": top,
    "OneHot": one_hot,
    "GatherElements": by_entry,
    "ScatterElements": by_entry,
}
