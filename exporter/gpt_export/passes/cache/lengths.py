"""The lengths at which a graph may do something new: sizes of its tables, and the numbers that positions meet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir

from gpt_export.passes.cache.interpreter import Meaning

LONGEST = 1 << 20
_COMBINED = 2048
_ADDING = frozenset(
    [
        "Add",
        "And",
        "Cast",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "CumSum",
        "Equal",
        "Expand",
        "Gather",
        "GatherND",
        "Greater",
        "GreaterOrEqual",
        "Identity",
        "Less",
        "LessOrEqual",
        "Neg",
        "Not",
        "Or",
        "Range",
        "Reshape",
        "Shape",
        "Slice",
        "Squeeze",
        "Sub",
        "Transpose",
        "Trilu",
        "Unsqueeze",
        "Where",
    ]
)
"""Operators whose thresholds are sums of their constants."""
_COMPARING = frozenset(
    {"Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Min", "Max", "Clip", "Trilu", "Div", "Mod"}
)


def candidate_lengths(meaning: Meaning, values: Iterable[ir.Value]) -> set[int]:
    """Whole numbers above 1 among the constants, and the sizes of the weights, that go into `values`."""
    found: set[int] = set()
    stack = list(values)
    seen = set(stack)
    while stack:
        value = stack.pop()
        node = value.producer()
        if node is None and value.const_value is None and value.shape is not None:
            found.update(int(size) for size in value.shape.numpy())
        if node is None or node.op_type == "Constant" or value.const_value is not None:
            found.update(_numbers(value))
            continue
        if node.op_type == "Shape" and node.inputs[0] in meaning.facts:
            continue
        read = node.inputs if node.op_type != "Where" else [each for each in node.inputs if not _is_number(each)]
        new = [each for each in read if each is not None and each not in seen]
        seen.update(new)
        stack.extend(new)
    return {number for number in found if 1 < number <= LONGEST}


def compared_lengths(meaning: Meaning, values: Iterable[ir.Value]) -> set[int]:
    """Whole numbers above 1 that positions on the way to `values` are compared with, or divided by."""
    found: set[int] = set()
    stack = list(values)
    seen = set(stack)
    while stack:
        node = stack.pop().producer()
        if node is None or (node.op_type == "Shape" and node.inputs[0] in meaning.facts):
            continue
        if node.op_type in _COMPARING:
            found.update(number for each in node.inputs if each is not None for number in _whole(each))
        new = [each for each in node.inputs if each is not None and each not in seen]
        seen.update(new)
        stack.extend(new)
    return {number for number in found if 1 < number <= LONGEST}


def _whole(value: ir.Value) -> set[int]:
    """The integers that a constant holds."""
    tensor = ir.convenience.get_const_tensor(value)
    return _numbers(value) if tensor is not None and tensor.dtype.is_integer() else set()


def _is_number(value: ir.Value | None) -> bool:
    """Whether `value` is one constant: what Where fills in is no length."""
    node = value.producer() if value is not None else None
    while node is not None and node.op_type in ("Cast", "Identity", "Expand", "Reshape") and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return tensor is not None and tensor.size == 1


def _numbers(value: ir.Value) -> set[int]:
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None or tensor.size > 16:
        return set()
    array = np.asarray(tensor.numpy()).reshape(-1)
    if array.dtype.kind not in "if":
        return set()
    return {abs(int(each)) for each in array if np.isfinite(each) and abs(each) <= LONGEST and each == int(each)}


def combined(meaning: Meaning, values: Sequence[ir.Value]) -> set[int]:
    """The candidates of masks: also sums of two, and products of two where positions are multiplied or divided."""
    base = {each for each in candidate_lengths(meaning, values) if each <= _COMBINED}
    found = base | {a + b for a in base for b in base}
    if multiplies(meaning, values):
        found |= {a * b for a in base for b in base} | {a * b + c for a in base for b in base for c in base}
    return {each for each in found if each <= meaning.longest + 6} | candidate_lengths(meaning, values)


def multiplies(meaning: Meaning, values: Sequence[ir.Value]) -> bool:
    """Whether positions are multiplied, divided or looked up on the way to `values`."""
    stack, seen = list(values), set(values)
    while stack:
        node = stack.pop().producer()
        if node is None or (node.op_type == "Shape" and node.inputs[0] in meaning.facts):
            continue
        if node.op_type not in _ADDING:
            return True
        new = [each for each in node.inputs if each is not None and each not in seen]
        seen.update(new)
        stack.extend(new)
    return False


def probes(candidates: Iterable[int], most: int) -> list[int]:
    """Lengths to look at a table at, in order: short ones, and each candidate, its neighbours and one well past it."""
    found = {1, 2, 7, 13}
    for each in candidates:
        found.update((each - 1, each, each + 1, each + 6))
    return sorted(length for length in found if 1 <= length <= most)
