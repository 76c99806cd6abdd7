"""The files of one artifact that hold the same model in several precisions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import PassBase

from gpt_export.errors import GraphError
from gpt_export.passes import cache_passes, fused_passes, half_passes, quantizing_passes, run_passes
from gpt_export.passes.certificate import check_fusions, check_quantized, operator_counts
from gpt_export.passes.quantized.quantize_products import COVERAGE
from gpt_export.pipeline.config import ExportConfig
from gpt_export.progress import OnPart, ignore_part
from gpt_export.runtime.signature import CacheDType
from gpt_export.sources.source import Source
from gpt_export.weights.layout import layout_of
from gpt_export.weights.onnx_file import OnnxFile, write_onnx
from gpt_export.weights.quantize.schemes import PLANS, Precision
from gpt_export.weights.quantize.weights import Codes, QuantizedWeights

FUSED = "gpt_export_fused"
"""Set on a model that is in onnxruntime's operators already."""
_ATTENTION = "GroupQueryAttention"
VARIANT_PATHS: Mapping[str, str] = {
    "fp32": "onnx/model.onnx",
    "fp16": "onnx/model_fp16.onnx",
    "int8": "onnx/model_quantized.onnx",
    "int4": "onnx/model_q4.onnx",
    "fp32-kv8": "onnx/model_kv8.onnx",
    "int8-kv8": "onnx/model_kv8_quantized.onnx",
    "int4-kv8": "onnx/model_kv8_q4.onnx",
}
"""The names by which transformers.js finds a precision: of `model`, and of `model_kv8` if that is asked for."""


def in_profile(portable: ir.Model, source: Source, config: ExportConfig) -> ir.Model:
    """`portable` in the operators that the profile allows.

    Raises:
        GraphError: a fusion did not take place.
    """
    if config.profile != "ort" or portable.meta.get(FUSED):
        return portable
    fused = run_passes(portable, fused_passes(source.weights, source.context_length))
    if source.cache and 0 < operator_counts(fused).get(_ATTENTION, 0) < source.cache.n_layers:
        # One buffer for past and present, and rows one by one, are for a graph as a whole.
        fused = run_passes(portable, fused_passes(source.weights, source.context_length, attention=False))
    check_fusions(fused)
    return fused


def in_precision(model: ir.Model, precision: Precision) -> ir.Model:
    """The fused `model` in another precision; in fp32 it is the model given."""
    passes: list[PassBase] = []
    if precision == "fp16":
        passes = half_passes()
    elif precision in PLANS:
        passes = quantizing_passes(PLANS[precision])
    return run_passes(model, passes) if passes else model


def write_variant(
    base: ir.Model,
    precision: Precision,
    source: Source,
    config: ExportConfig,
    path: Path,
    calibrated: Mapping[tuple[str, ...], Codes] | None = None,
    cache_scales: Mapping[str, NDArray[np.float32]] | None = None,
    on_part: OnPart = ignore_part,
) -> OnnxFile:
    """Writes `base` in a precision to `path`.

    Args:
        calibrated: codes that are known already, see `QuantizedWeights`.
        cache_scales: for a cache of 8 bits, see `QuantizeCache`; None leaves it as the precision has it.
        on_part: told of every weight that is written.

    Raises:
        ConfigError, GraphError, OSError: as in `write_onnx`.
    """
    model = in_precision(base, precision)
    if cache_scales is not None:
        model = run_passes(model, cache_passes(cache_scales))
    counts = operator_counts(model)
    if precision in PLANS:
        check_quantized(base, counts, precision)
    layouts = [layout for value in model.graph.inputs if (layout := layout_of(value))]
    if unused := set(calibrated or ()) - {layout.sources for layout in layouts if layout.coded}:
        raise GraphError(f"the calibrated matrix {' + '.join(min(unused))} is none of the graph's; please report this")
    weights = QuantizedWeights(source.weights, layouts, calibrated)
    cache_dtype: CacheDType = "float16" if precision == "fp16" else "float32"
    if cache_scales is not None:
        cache_dtype = "int8"
    grouped = _ATTENTION in counts
    facts: dict[str, Any] = {
        "precision": precision,
        "profile": config.profile,
        "operators": counts,
        "quantized_share": model.meta.get(COVERAGE),
        "cache_dtype": cache_dtype if source.cache else None,
        "shared_cache": grouped,
        "batched_chunks": source.cache is not None and not grouped,
    }
    return write_onnx(
        model,
        weights,
        source.signature(cache_dtype),
        path,
        cache=source.cache,
        single_file=config.single_file,
        facts=facts,
        on_part=on_part,
    )
