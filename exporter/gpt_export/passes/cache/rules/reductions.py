"""Operators that work along axes: these must be features, or columns for a Softmax."""

from __future__ import annotations

from collections.abc import Sequence

from gpt_export.passes.cache.axes import chosen_of, columns_of, holds_rows, is_constant
from gpt_export.passes.cache.facts import Step
from gpt_export.passes.cache.rules.reading import OverRowsError, Reading, Rule

_REDUCERS = [
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
]

_OVER_COLUMNS = frozenset({"ReduceMax", "ReduceSum", "ReduceLogSumExp"})


def reduce(reading: Reading) -> Step:
    given = reading.fixed(1) if len(reading.node.inputs) > 1 else reading.attribute("axes")
    rank = len(reading.axes())
    if not given and reading.attribute("noop_with_empty_axes", 0):
        return Step((reading.axes(),), alias=0)
    places = {place % rank for place in given} if given else set(range(rank))
    return _reduced(reading, places, bool(reading.attribute("keepdims", 1)))


def arg(reading: Reading) -> Step:
    places = {reading.attribute("axis", 0) % len(reading.axes())}
    return _reduced(reading, places, bool(reading.attribute("keepdims", 1)))


def _reduced(reading: Reading, places: set[int], keep: bool) -> Step:
    axes = reading.axes()
    _check_features(reading, sorted(places))
    return Step((tuple(() if i in places else of for i, of in enumerate(axes) if keep or i not in places),))


def _check_features(reading: Reading, places: Sequence[int]) -> None:
    for place in places:
        of = reading.axes()[place]
        if columns_of(of) and len(of) == 1 and reading.node.op_type in _OVER_COLUMNS:
            continue  # a Softmax that is written out; what it gives is tried on numbers
        if not is_constant(of):
            if holds_rows(of) or columns_of(of):
                raise reading.refuse("works along the sequence, which is not causal")
            raise reading.refuse(f"works along {'what the ids choose' if chosen_of(of) else 'the batch'}")


def along(reading: Reading) -> Step:
    """Softmax and its like: one axis in, the same out."""
    axes = reading.axes()
    place = reading.attribute("axis", -1) % len(axes)
    columns = columns_of(axes[place])
    if reading.node.op_type == "Softmax" and columns is not None and len(axes[place]) == 1:
        reading.found.softmaxes.add(reading.node)
        return Step((axes,))
    if reading.node.op_type == "Softmax" and holds_rows(axes[place]):
        others = [each for each in map(columns_of, axes) if each is not None]
        if others:
            raise OverRowsError(reading.node, reading.found.products[others[0].product])
    _check_features(reading, [place])
    return Step((axes,) * len(reading.node.outputs))


def cumulate(reading: Reading) -> Step:
    at = reading.fixed(1)
    assert at is not None
    if holds_rows(reading.axes()[at[0] % len(reading.axes())]):
        raise reading.refuse("works along the sequence: it carries a sum from token to token")
    _check_features(reading, [at[0] % len(reading.axes())])
    return Step((reading.axes(),))


def normalise(reading: Reading) -> Step:
    """LayerNormalization and RMSNormalization: from `axis` on, all features."""
    axes = reading.axes()
    first = reading.attribute("axis", -1) % len(axes)
    _check_features(reading, range(first, len(axes)))
    reduced = (*axes[:first], *((),) * (len(axes) - first))
    return Step((axes, *(reduced,) * (len(reading.node.outputs) - 1)))


RULES: dict[str, Rule] = {
    **dict.fromkeys(_REDUCERS, reduce),
    **dict.fromkeys(("ArgMax", "ArgMin"), arg),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax", "LpNormalization"), along),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), normalise),
    "CumSum": cumulate,
}
