"""Operators that take entries by index."""

from __future__ import annotations

from gpt_export.passes.cache.axes import TRIED, is_constant
from gpt_export.passes.cache.facts import Step
from gpt_export.passes.cache.rules.reading import Reading, Rule


def gather(reading: Reading) -> Step:
    """Rows of a table, or features by constant indices; positions cannot be picked."""
    axes, index = reading.axes(0), reading.axes(1)
    place = reading.attribute("axis", 0) % len(axes)
    if not is_constant(axes[place]):
        raise reading.refuse("takes some positions and leaves others")
    others = (*axes[:place], *axes[place + 1 :])
    if not all(is_constant(of) for of in index) and not all(is_constant(of) for of in others):
        raise reading.refuse("takes features by an index that depends on positions")
    return Step(((*axes[:place], *index, *axes[place + 1 :]),))


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
    "TopK": top,
    "OneHot": one_hot,
    "GatherElements": by_entry,
    "ScatterElements": by_entry,
}
