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


_SHORTEST = 7


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


def hides_alike(meaning: Meaning, value: ir.Value) -> bool:
    """Whether a mask (..., rows, columns) holds one number for all later tokens at every length that can be evaluated.

    True of a matrix that is no mask: one that holds several numbers for later tokens at a short length already.
    """
    hidden: float | None = None
    for length in probes(combined(meaning, [value]), meaning.longest):
        shape = Sizes(1, length).shape(meaning.facts[value].axes)
        if length < _SHORTEST or int(np.prod(shape, dtype=np.int64)) > MOST_NUMBERS:
            continue
        array = _evaluated(meaning, value, length)
        if array is None:
            continue
        later = np.unique(array.reshape(-1, length, length)[:, *np.triu_indices(length, 1)])
        if hidden is None and len(later) > 1:
            return True
        if len(later) > 1 or (hidden is not None and later[0] != hidden):
            return False
        hidden = later[0]
    return True


def _at(meaning: Meaning, value: ir.Value, length: int) -> Array | None:
    """The matrix at a length; None where a buffer that it is cut from has ended."""
    array = _evaluated(meaning, value, length)
    return None if array is None else array.reshape(length, length)


def _evaluated(meaning: Meaning, value: ir.Value, length: int) -> Array | None:
    """(..., rows, columns) at a length; None where a buffer that it is cut from has ended."""
    sizes = Sizes(1, length)
    try:
        array = meaning.evaluator.array(value, sizes)
    except CacheRefusedError:
        return None
    finally:
        meaning.evaluator.forget_large(sizes)
    return array if array.shape[-2:] == (length, length) else None


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
