"""The lengths at which a graph may do something new: sizes of its tables, and the numbers that positions meet."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from gpt_export.passes.cache.interpreter import Meaning

LONGEST = 1 << 20


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


def probes(candidates: Iterable[int], most: int) -> list[int]:
    """Lengths to look at a table at, in order: short ones, and each candidate, its neighbours and one well past it."""
    found = {1, 2, 7, 13}
    for each in candidates:
        found.update((each - 1, each, each + 1, each + 6))
    return sorted(length for length in found if 1 <= length <= most)
