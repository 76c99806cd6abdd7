"""Masks by what they are: a position-only matrix that is one number where rows may look, another elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from gpt_export.passes.cache.axes import Sizes
from gpt_export.passes.cache.interpreter import Meaning
from gpt_export.passes.cache.lengths import combined, probes
from gpt_export.passes.cache.refusal import CacheRefusedError
from gpt_export.passes.cache.tables import MOST_NUMBERS

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Band:
    """A row looks at itself and at the `window` - 1 tokens before it, at all before it where that is None."""

    window: int | None

    def matrix(self, length: int) -> Array:
        """bool (length, length)."""
        distance = np.arange(length)[:, None] - np.arange(length)[None, :]
        return (distance >= 0) & (distance < (self.window or length))


def band_of(meaning: Meaning, value: ir.Value) -> Band | None:
    """The band that `value` (..., rows, columns) is, at every length that its constants make worth looking at.

    None where it is no band, or where those lengths are too many numbers to evaluate.
    """
    axes = meaning.facts[value].axes
    lengths = probes(combined(meaning, [value]), meaning.longest)
    shape = Sizes(1, lengths[-1]).shape(axes)
    if len(shape) < 2 or any(size != 1 for size in shape[:-2]) or lengths[-1] ** 2 > MOST_NUMBERS:
        return None
    found: Band | None = None
    for length in reversed(lengths):
        array = _at(meaning, value, length)
        if array is None:
            continue
        if found is None:
            if length <= 2:
                return None
            found = Band(_window(array))
        if not _is_band(array, found):
            return None
    return found


def _at(meaning: Meaning, value: ir.Value, length: int) -> Array | None:
    """The matrix at a length; None where a buffer that it is cut from has ended."""
    sizes = Sizes(1, length)
    try:
        array = meaning.evaluator.array(value, sizes)
    except CacheRefusedError:
        return None
    finally:
        meaning.evaluator.forget_large(sizes)
    return array.reshape(length, length) if array.size == length * length else None


def _window(array: Array) -> int | None:
    same = array[-1] == array[0, 0]
    count = int(same.sum())
    return None if count == len(same) else count


def _is_band(array: Array, band: Band) -> bool:
    inside = array[0, 0]
    outside = array[0, -1] if len(array) > 1 else inside
    if len(array) > 1 and inside == outside:
        return False
    return bool(np.array_equal(array, np.where(band.matrix(len(array)), inside, outside)))
