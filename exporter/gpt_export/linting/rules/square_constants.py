"""Masks that are stored instead of computed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import TensorProto

from gpt_export.artifact.element_sizes import size_bytes
from gpt_export.artifact.onnx_model import OnnxModel
from gpt_export.linting.finding import Finding, Severity, tensor
from gpt_export.linting.registry import rule
from gpt_export.linting.settings import LintSettings
from gpt_export.linting.tensors import UnreadableError, elements, readable_size, stored

SQUARE_MASK = rule(
    "GX111",
    Severity.WARNING,
    "a constant of context x context elements looks like a causal mask",
    "compute the mask from positions (Range and LessOrEqual): it then costs nothing and ends at no context",
)
SMALLEST = 64
"""Axes below are no context worth the name."""
_MASKED = -1e4
"""At most this is as good as minus infinity before a softmax; the float16 minimum and torch's are below."""
_READABLE: dict[int, str] = {
    TensorProto.FLOAT: "<f4",
    TensorProto.DOUBLE: "<f8",
    TensorProto.FLOAT16: "<f2",
    TensorProto.INT32: "<i4",
    TensorProto.INT64: "<i8",
    TensorProto.INT8: "i1",
    TensorProto.UINT8: "u1",
    TensorProto.BOOL: "u1",
}


def square_constants(model: OnnxModel, _settings: LintSettings) -> Iterator[Finding]:
    """Initializers and Constants with two equal axes, no others, and two kinds of elements."""
    for name, value in {**model.initializers, **model.constants}.items():
        axes = [dim for dim in value.dims if dim != 1]
        if len(axes) == 2 and axes[0] == axes[1] >= SMALLEST and _is_mask(value, model):
            size = readable_size(size_bytes(value) or 0)
            yield SQUARE_MASK.found(
                tensor(name), f"{name} is a mask of {axes[0]} x {axes[1]} constants ({size}); none are needed"
            )


def _is_mask(value: TensorProto, model: OnnxModel) -> bool:
    """Whether its elements are bools, or of exactly two kinds: 0 and 1, or 0 and very negative ones."""
    if value.data_type == TensorProto.BOOL:
        return True
    if value.data_type not in _READABLE:
        return False
    kinds: set[str] = set()
    try:
        for part in elements(stored(value, model.path), np.dtype(_READABLE[value.data_type])):
            kinds |= {
                kind
                for kind, found in (("0", part == 0), ("1", part == 1), ("masked", part.astype(np.float64) <= _MASKED))
                if found.any()
            }
            covered = (part == 0) | (part == 1) | (part.astype(np.float64) <= _MASKED)
            if not covered.all() or len(kinds) > 2:
                return False
    except UnreadableError:
        return False
    return len(kinds) == 2
