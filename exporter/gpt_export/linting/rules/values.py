"""Elements of weights that no model should have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from gpt_export.artifact.element_sizes import count
from gpt_export.artifact.onnx_model import OnnxModel
from gpt_export.linting.finding import Finding, Severity, tensor
from gpt_export.linting.registry import rule
from gpt_export.linting.settings import LintSettings
from gpt_export.linting.tensors import UnreadableError, elements, shown, stored

NAN = rule(
    "GX511",
    Severity.ERROR,
    "a weight holds NaN",
    "the checkpoint is damaged or training diverged: export another one",
)
INF = rule(
    "GX512",
    Severity.WARNING,
    "a weight holds infinities (masks of 0 and minus infinity are not meant)",
    "look for an overflow on the way to float16, or in training",
)
FLOAT64 = rule(
    "GX513",
    Severity.WARNING,
    "weights are float64: twice the bytes and half the speed for digits that no GPT uses",
    "convert the model with .float() before the export",
)
_LAYOUTS: dict[int, tuple[str, int, int]] = {
    # the unsigned integer of the same width, and the bits of the exponent and of the fraction (IEEE 754, bfloat16)
    TensorProto.FLOAT: ("<u4", 0x7F800000, 0x007FFFFF),
    TensorProto.FLOAT16: ("<u2", 0x7C00, 0x03FF),
    TensorProto.BFLOAT16: ("<u2", 0x7F80, 0x007F),
    TensorProto.DOUBLE: ("<u8", 0x7FF0000000000000, 0x000FFFFFFFFFFFFF),
}


def values(model: OnnxModel, _settings: LintSettings) -> Iterator[Finding]:
    """Initializers of fractions, read once from beginning to end. Single numbers may be anything."""
    doubles = [
        name for name, value in model.initializers.items() if value.data_type == TensorProto.DOUBLE and count(value) > 1
    ]
    if doubles:
        message = f"{len(doubles)} weights are float64: {shown(doubles)}; float32 or less is expected"
        yield FLOAT64.found(tensor(doubles[0]), message)
    for name, value in model.initializers.items():
        if value.data_type in _LAYOUTS and count(value) > 1:
            try:
                nans, infinities = _not_finite(value, model)
            except UnreadableError:
                continue
            if nans:
                yield NAN.found(tensor(name), f"{name} has {nans} NaN among {count(value)} elements; none are allowed")
            if infinities:
                message = f"{name} has {infinities} infinities among {count(value)} elements; none are expected"
                yield INF.found(tensor(name), message)


def _not_finite(value: TensorProto, model: OnnxModel) -> tuple[int, int]:
    """How many NaN and infinities there are; the minus infinities of a mask are not counted."""
    layout, exponent, fraction = _LAYOUTS[value.data_type]
    nans = infinities = 0
    mask = True
    for part in elements(stored(value, model.path), np.dtype(layout)):
        bits: NDArray[Any] = part
        special = (bits & exponent) == exponent
        mask = mask and _is_mask(bits, special)
        if special.any():
            found = int(((bits[special] & fraction) != 0).sum())
            nans += found
            infinities += int(special.sum()) - found
    return nans, 0 if mask and not nans else infinities


def _is_mask(bits: NDArray[Any], special: NDArray[np.bool_]) -> bool:
    """Whether every element is 0 or negative and not finite."""
    sign = bits >> (bits.dtype.itemsize * 8 - 1)
    return bool(((bits == 0) | (special & (sign == 1))).all())
