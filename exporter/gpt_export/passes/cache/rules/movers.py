"""Operators that move entries about without changing them."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from gpt_export.passes.cache.axes import (
    ROWS,
    TRIED,
    Axes,
    Axis,
    Columns,
    axes_of_shapes,
    axis,
    constant_size,
    holds_rows,
    is_constant,
    regroup,
)
from gpt_export.passes.cache.facts import Step, Written
from gpt_export.passes.cache.rules.reading import Reading, Rule

_TO_THE_END = 2**63 - 1


def transpose(reading: Reading) -> Step:
    axes = reading.axes()
    perm = reading.attribute("perm") or tuple(reversed(range(len(axes))))
    moved = tuple(axes[i] for i in perm)
    return Step((moved,), alias=0 if list(perm) == sorted(perm) else None)


def reshape(reading: Reading) -> Step:
    """Axes are read in order and cut anew; positions must come through whole."""
    numbers = reading.numbers(1)
    assert numbers is not None
    keep_zero = bool(reading.attribute("allowzero", 0))
    shapes = [_resolved(reading, target, place, keep_zero) for place, target in enumerate(numbers)]
    return _regrouped(reading, shapes)


def flatten(reading: Reading) -> Step:
    at = reading.attribute("axis", 1) % (len(reading.axes()) + 1)
    axes = reading.axes()
    shapes = [(sizes.of(axis(*sum(axes[:at], ()))), sizes.of(axis(*sum(axes[at:], ())))) for sizes in TRIED]
    return _regrouped(reading, shapes)


def _regrouped(reading: Reading, shapes: Sequence[Sequence[int]]) -> Step:
    axes = regroup(reading.axes(), list(zip(*shapes, strict=True)))
    if axes is None:
        raise reading.refuse("puts entries of different positions into one row")
    zero = {"allowzero": ir.AttrInt64("allowzero", 0)} if reading.attribute("allowzero") else {}
    return Step((axes,), alias=0 if axes == reading.axes() else None, written={1: Written(axes)}, attributes=zero)


def _resolved(reading: Reading, target: tuple[int, ...], place: int, keep_zero: bool) -> tuple[int, ...]:
    """A shape without 0 and -1."""
    source = TRIED[place].shape(reading.axes())
    sizes = [source[i] if size == 0 and not keep_zero else size for i, size in enumerate(target)]
    if -1 in sizes:
        known, total = 1, 1
        for size in sizes:
            known *= size if size != -1 else 1
        for size in source:
            total *= size
        sizes[sizes.index(-1)] = total // known
    return tuple(sizes)


def unsqueeze(reading: Reading) -> Step:
    places = reading.fixed(1) if len(reading.node.inputs) > 1 else tuple(reading.attribute("axes", ()))
    axes = reading.axes()
    rank = len(axes) + len(places or ())
    new = {place % rank for place in places or ()}
    old = iter(axes)
    return Step((tuple(() if place in new else next(old) for place in range(rank)),))


def squeeze(reading: Reading) -> Step:
    given = reading.fixed(1) if len(reading.node.inputs) > 1 else reading.attribute("axes")
    axes = reading.axes()
    gone = {place % len(axes) for place in given} if given is not None else {i for i, of in enumerate(axes) if not of}
    return Step((tuple(of for i, of in enumerate(axes) if i not in gone),))


def expand(reading: Reading) -> Step:
    numbers = reading.numbers(1)
    assert numbers is not None
    source = reading.axes()
    target = axes_of_shapes(numbers)
    if target is None:
        raise reading.refuse("repeats entries as often as the length says")
    rank = max(len(source), len(target))
    padded = ((),) * (rank - len(source)) + source
    wanted = ((),) * (rank - len(target)) + target
    axes = tuple(of or new for of, new in zip(padded, wanted, strict=True))
    if sum(holds_rows(of) for of in axes) > max(1, sum(holds_rows(of) for of in source)):
        raise reading.refuse("repeats rows along the sequence")
    return Step((axes,), alias=0 if axes == source else None, written={1: Written(axes)})


def tile(reading: Reading) -> Step:
    repeats = reading.fixed(1) or ()
    axes = list(reading.axes())
    for i, times in enumerate(repeats):
        if times != 1:
            if not is_constant(axes[i]):
                raise reading.refuse("repeats positions")
            axes[i] = axis(constant_size(axes[i]) * times)
    return Step((tuple(axes),))


def cut(reading: Reading) -> Step:
    """Slice: constant axes as one likes, columns down to the positions, positions not at all."""
    axes = list(reading.axes())
    starts, ends, places, steps = _bounds_of(reading)
    rows: list[tuple[int, int, int, int]] = []
    last = False
    unread = None
    for k, place in enumerate(place % len(axes) for place in places):
        lengths = [sizes.of(axes[place]) for sizes in TRIED]
        ranges = [
            range(*slice(_bound(starts[t][k], steps[k]), _bound(ends[t][k], steps[k]), steps[k]).indices(length))
            for t, length in enumerate(lengths)
        ]
        if all(each == range(length) for each, length in zip(ranges, lengths, strict=True)):
            continue
        if axes[place] == (ROWS,) and [list(each) for each in ranges] == [[length - 1] for length in lengths]:
            last = True
            continue
        if holds_rows(axes[place]) and starts[0][k] == starts[1][k] and ranges[0] == ranges[1]:
            unread = reading.refuse("takes some positions and leaves others")
            axes[place] = axis(len(ranges[0]))
            continue
        kept, start, end = _kept(reading, axes[place], ranges, (starts[0][k], ends[0][k]))
        axes[place] = kept
        rows.append((start, end, place, steps[k]))
    if unread is not None:
        return Step((tuple(axes),), unread=unread)
    if not rows:
        return Step((tuple(axes),), alias=0, last=last)
    written = {i + 1: Written(numbers=numbers) for i, numbers in enumerate(zip(*rows, strict=True))}
    return Step((tuple(axes),), written=written, last=last)


_Bounds = tuple[tuple[int, ...], ...]


def _bounds_of(reading: Reading) -> tuple[_Bounds, _Bounds, tuple[int, ...], tuple[int, ...]]:
    """Starts and ends of a Slice at each of the sizes of `TRIED`, its axes and its steps."""
    if len(reading.node.inputs) > 1:
        starts, ends = reading.numbers(1) or (), reading.numbers(2) or ()
        places = reading.fixed(3) or tuple(range(len(starts[0])))
        return starts, ends, places, reading.fixed(4) or (1,) * len(places)
    places = tuple(reading.attribute("axes") or range(len(reading.attribute("starts"))))
    starts, ends = ((tuple(reading.attribute(name)),) * len(TRIED) for name in ("starts", "ends"))
    return starts, ends, places, (1,) * len(places)


def _bound(number: int, step: int) -> int | None:
    """A bound as Python's slices read it: ONNX ends a backward slice at the front by the smallest number."""
    return None if step < 0 and number <= -(2**62) else number


def _kept(reading: Reading, of: Axis, ranges: list[range], given: tuple[int, int]) -> tuple[Axis, int, int]:
    """What a slice leaves of an axis, and its start and end in a form that is right at any length."""
    if is_constant(of):
        if ranges[0] != ranges[1]:
            raise reading.refuse("cuts features at a place that depends on the length")
        start, end = given
        return axis(len(ranges[0])), start, end
    columns = of[0]
    if len(of) == 1 and isinstance(columns, Columns) and all(each.step == 1 for each in ranges):
        fronts = {each.start for each in ranges}
        backs = {sizes.of(of) - each.stop for each, sizes in zip(ranges, TRIED, strict=True)}
        front, back = fronts.pop(), backs.pop()
        if not fronts and not backs and front <= columns.front and back <= columns.back:
            left = Columns(columns.product, columns.front - front, columns.back - back)
            return (left,), front, -back if back else _TO_THE_END
    raise reading.refuse("takes some positions and leaves others")


def split(reading: Reading) -> Step:
    axes = reading.axes()
    place = reading.attribute("axis", 0) % len(axes)
    if not is_constant(axes[place]):
        raise reading.refuse("splits positions")
    total, parts = constant_size(axes[place]), len(reading.node.outputs)
    sizes = reading.fixed(1) if reading.fact(1) else tuple(reading.attribute("split") or ())
    if not sizes:
        each = -(-total // parts)
        sizes = (each,) * (parts - 1) + (total - each * (parts - 1),)
    outputs = tuple((*axes[:place], axis(size), *axes[place + 1 :]) for size in sizes)
    written = {1: Written(numbers=tuple(sizes))} if reading.fact(1) else {}
    return Step(outputs, written=written)


def concat(reading: Reading) -> Step:
    """Constant axes are joined; constant entries may stand around columns; nothing else may."""
    count = len(reading.node.inputs)
    rank = len(reading.axes(0))
    place = reading.attribute("axis") % rank
    full = [i for i in range(count) if reading.axes(i)[place] != (0,)]
    if len(full) == 1:
        return Step((reading.axes(full[0]),), alias=full[0])
    lead = next((i for i in full if reading.is_data(i)), full[0])
    joined = _joined(reading, [reading.axes(i)[place] for i in full])
    for i in full:
        for k in range(rank):
            of, wanted = reading.axes(i)[k], reading.axes(lead)[k]
            same_size = all(sizes.of(of) == sizes.of(wanted) for sizes in TRIED)
            if k != place and (of != wanted if reading.is_data(i) else not same_size):
                raise reading.refuse("joins axes of different meaning")
    axes: Axes = (*reading.axes(lead)[:place], joined, *reading.axes(lead)[place + 1 :])
    return Step((axes,), aligned=True, full=True)


def _joined(reading: Reading, parts: list[Axis]) -> Axis:
    if all(is_constant(of) for of in parts):
        return axis(sum(constant_size(of) for of in parts))
    middle = [i for i, of in enumerate(parts) if not is_constant(of)]
    if len(middle) == 1:
        only = parts[middle[0]]
        if len(only) == 1 and isinstance(only[0], Columns):
            front = sum(constant_size(of) for of in parts[: middle[0]])
            back = sum(constant_size(of) for of in parts[middle[0] + 1 :])
            return (Columns(only[0].product, only[0].front + front, only[0].back + back),)
    raise reading.refuse("joins positions to others")


RULES: dict[str, Rule] = {
    "Transpose": transpose,
    "Reshape": reshape,
    "Flatten": flatten,
    "Unsqueeze": unsqueeze,
    "Squeeze": squeeze,
    "Expand": expand,
    "Tile": tile,
    "Slice": cut,
    "Split": split,
    "Concat": concat,
}
