"""Matrix products: with weights, of queries and keys, and of what attention gives each position with the values."""

from __future__ import annotations

from gpt_export.passes.cache.axes import ROWS, TRIED, Axes, Axis, Columns, columns_of, holds_rows, is_constant
from gpt_export.passes.cache.facts import Step
from gpt_export.passes.cache.rules.reading import Product, Reading, Rule


def matmul(reading: Reading) -> Step:
    left, right = _matrix(reading.axes(0), front=True), _matrix(reading.axes(1), front=False)
    batch = _batch(reading, left[:-2], right[:-2])
    inner, row, column = (left[-1], right[-2]), left[-2], right[-1]
    if all(is_constant(of) for of in inner):
        step = _outer(reading, batch, row, column)
    else:
        step = _mix(reading, batch, row, column, inner)
    axes = list(step.outputs[0])
    if len(reading.axes(0)) == 1:
        del axes[-2]
    if len(reading.axes(1)) == 1:
        del axes[-1]
    step.outputs = (tuple(axes),)
    return step


def _matrix(axes: Axes, front: bool) -> Axes:
    if len(axes) > 1:
        return axes
    return ((), *axes) if front else (*axes, ())


def _batch(reading: Reading, left: Axes, right: Axes) -> Axes:
    rank = max(len(left), len(right))
    pairs = zip(((),) * (rank - len(left)) + left, ((),) * (rank - len(right)) + right, strict=True)
    axes: list[Axis] = []
    for a, b in pairs:
        data_only = reading.is_data(0) and reading.is_data(1)
        sizes_differ = any(sizes.of(a) != sizes.of(b) for sizes in TRIED)
        if a and b and (a != b if data_only else sizes_differ):
            raise reading.refuse("multiplies axes of different meaning")
        axes.append(a or b)
    return tuple(axes)


def _outer(reading: Reading, batch: Axes, row: Axis, column: Axis) -> Step:
    """Features are summed over: a projection, or queries with keys where both sides have positions."""
    if not (holds_rows(row) and holds_rows(column)):
        if any(holds_rows(of) for of in batch) and (holds_rows(row) or holds_rows(column)):
            raise reading.refuse("sets positions against positions in a way that is not attention")
        return Step(((*batch, row, column),), aligned=True)
    if not (reading.is_data(0) and reading.is_data(1)):
        raise reading.refuse("sets positions against positions of a table")
    if (
        row[:1] != (ROWS,)
        or not is_constant(row[1:])
        or column != (ROWS,)
        or any(holds_rows(of) or columns_of(of) for of in batch)
    ):
        raise reading.refuse("sets positions against positions that are folded into another axis")
    found = reading.found
    flipped = reading.node in found.flipped
    product = Product(reading.node, query=int(flipped), key=int(not flipped), number=len(found.products))
    found.products.append(product)
    columns: Axis = (Columns(product.number),)
    ends = (columns, row) if flipped else (row, columns)
    return Step(((*batch, *ends),), whole=(product.key,))


def _mix(reading: Reading, batch: Axes, row: Axis, column: Axis, inner: tuple[Axis, Axis]) -> Step:
    """Positions are summed over: columns of what a row attends to, with the rows of the values."""
    for weights, values in ((0, 1), (1, 0)):
        columns = columns_of(inner[weights])
        if columns is None or inner[weights] != (columns,):
            continue
        if columns.front or columns.back or inner[values] != (ROWS,) or not reading.is_data(values):
            raise reading.refuse("sums over positions and what was put beside them")
        other = column if values == 1 else row
        if holds_rows(other) or columns_of(other):
            raise reading.refuse("sums over positions of scores and keeps positions of the values")
        reading.found.mixes[reading.node] = values
        return Step(((*batch, row, column),), whole=(values,))
    raise reading.refuse("sums over the sequence outside of attention")


def gemm(reading: Reading) -> Step:
    left, right = reading.axes(0), reading.axes(1)
    if reading.attribute("transA", 0):
        left = left[::-1]
    if reading.attribute("transB", 0):
        right = right[::-1]
    if not is_constant(left[1]) or not is_constant(right[0]):
        raise reading.refuse("sums over the sequence")
    if holds_rows(left[0]) and holds_rows(right[1]):
        raise reading.refuse("sets positions against positions that are folded into another axis")
    return Step(((left[0], right[1]),))


RULES: dict[str, Rule] = {"MatMul": matmul, "Gemm": gemm}
