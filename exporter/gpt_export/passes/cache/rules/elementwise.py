"""Operators that act entry by entry, their inputs broadcast against one another."""

from __future__ import annotations

from gpt_export.passes.cache.axes import TRIED, Axis, columns_of, holds_rows
from gpt_export.passes.cache.facts import Step
from gpt_export.passes.cache.rules.reading import Reading, Rule

_SAME_FORM = [
    "Abs",
    "Acos",
    "Acosh",
    "Add",
    "And",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BitShift",
    "BitwiseAnd",
    "BitwiseNot",
    "BitwiseOr",
    "BitwiseXor",
    "Cast",
    "Ceil",
    "Celu",
    "Clip",
    "Cos",
    "Cosh",
    "Div",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "Greater",
    "GreaterOrEqual",
    "HardSigmoid",
    "HardSwish",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "Max",
    "Mean",
    "Min",
    "Mish",
    "Mod",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "PRelu",
    "Pow",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Sub",
    "Sum",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "Where",
    "Xor",
]


def broadcast(reading: Reading) -> Step:
    """The output has the axes of the inputs, aligned from the right."""
    inputs = [i for i, value in enumerate(reading.node.inputs) if value is not None]
    if len(inputs) == 1 and reading.node.op_type in ("Max", "Min", "Sum", "Mean"):
        return Step((reading.axes(),), alias=0)
    rank = max(len(reading.axes(i)) for i in inputs)
    axes = tuple(_meet(reading, inputs, place - rank) for place in range(rank))
    if sum(holds_rows(of) for of in axes) > 1:
        raise reading.refuse("sets positions against positions outside of a product of queries and keys")
    return Step((axes,) * len(reading.node.outputs), aligned=True)


def _meet(reading: Reading, inputs: list[int], place: int) -> Axis:
    """The output's axis at `place`, counted from the end."""
    present = [i for i in inputs if -place <= len(reading.axes(i)) and reading.axes(i)[place]]
    data = [reading.axes(i)[place] for i in present if reading.is_data(i)]
    others = [reading.axes(i)[place] for i in present if not reading.is_data(i)]
    if any(of != data[0] and not _both_columns(of, data[0]) for of in data[1:]):
        if any(columns_of(of) for of in data) and any(holds_rows(of) for of in data):
            raise reading.refuse("adds to the scores what depends on the tokens that are looked at")
        raise reading.refuse("combines axes of different meaning")
    if not data:
        return others[0] if others else ()
    for of in others:
        if any(sizes.of(of) != sizes.of(data[0]) for sizes in TRIED):
            raise reading.refuse("combines axes of different meaning")
    return data[0]


def _both_columns(a: Axis, b: Axis) -> bool:
    """Whether both are columns with the same entries around them, if of different products (differential attention)."""
    first, second = columns_of(a), columns_of(b)
    if first is None or second is None or a != (first,) or b != (second,):
        return False
    return (first.front, first.back) == (second.front, second.back)


def same(reading: Reading) -> Step:
    """The output is the input."""
    training = reading.arrays(2) if reading.node.op_type == "Dropout" else None
    if training is not None and any(bool(each) for each in training):
        raise reading.refuse("is random: it drops entries as in training")
    return Step((reading.axes(),) * len(reading.node.outputs), alias=0)


def like_first(reading: Reading) -> Step:
    """The output has the axes of the first input, the others are parameters."""
    return Step((reading.axes(),) * len(reading.node.outputs))


RULES: dict[str, Rule] = {
    **dict.fromkeys(_SAME_FORM, broadcast),
    **dict.fromkeys(("Identity", "Dropout"), same),
    "CastLike": like_first,
    "Clip": like_first,
}
