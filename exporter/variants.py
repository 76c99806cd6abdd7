"""The files of one artifact that hold the same model in several precisions."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
from onnx_ir.passes import PassBase

from exporter.passes import fused_passes, half_passes, quantizing_passes, run_passes
from exporter.quantize.schemes import PLANS, Precision
from exporter.signature import CacheShape

VARIANT_PATHS: Mapping[Precision, str] = {
    "fp32": "onnx/model.onnx",
    "fp16": "onnx/model_fp16.onnx",
    "int8": "onnx/model_quantized.onnx",
    "int4": "onnx/model_q4.onnx",
}
"""The names by which transformers.js finds a precision."""


def fused(model: ir.Model, cache: CacheShape) -> ir.Model:
    """The portable `model` in onnxruntime's own operators."""
    return run_passes(model, fused_passes(cache.n_heads))


def in_precision(model: ir.Model, precision: Precision) -> ir.Model:
    """The fused `model` in another precision; in fp32 it is the model given."""
    passes: list[PassBase] = []
    if precision == "fp16":
        passes = half_passes()
    elif precision in PLANS:
        passes = quantizing_passes(PLANS[precision])
    return run_passes(model, passes) if passes else model
