"""How large keys and values are: a text through the float graph, the largest of each channel kept."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from torch import Tensor

from gpt_export.passes.quantized.cache_codes import attentions
from gpt_export.passes.quantized.segments import Array, SegmentedRun, feed_of
from gpt_export.progress import OnPart, ignore_part
from gpt_export.weights.layout import layout_of
from gpt_export.weights.numbers import laid_out
from gpt_export.weights.quantize.parallel import one_thread_a_part

logger = logging.getLogger(__name__)

MARGIN = 1.1
"""By how much a text may exceed what was seen before its keys and values are cut off. Set by measurement: with half as
much again perplexity rises a little by rounding, with a tenth less than none it rises more by what is cut."""
HIGHEST = 127
_LEAST = 1e-6
"""Of the largest channel of a layer, what a channel is taken for that was never anything but 0."""
_BITS = 8
"""Of a scale's fraction. Sums end in other bits on other processors; scales that are rounded up to so few seldom do."""


def cache_scales(
    model: ir.Model,
    weights: Mapping[str, Tensor],
    texts: Sequence[NDArray[np.int64]],
    on_part: OnPart = ignore_part,
) -> dict[str, NDArray[np.float32]]:
    """By the name of each present of `model`, the scales of its codes, float32 (1, heads, 1, width).

    Args:
        model: the float graph, its attention fused, its weights still inputs.
        weights: of the source.
        texts: token ids, int64 (rows, length), none of them padding.
        on_part: told of every layer.

    Raises:
        GraphError: the cache of a layer cannot have 8 bits.
    """
    graph = model.clone().graph
    graph.sort()
    layers = [[str(value.name) for value in node.outputs[1:3]] for node in attentions(model)]
    outputs = {str(value.name): value for value in graph.outputs}

    def weight(value: ir.Value) -> Array:
        layout = layout_of(value)
        assert layout is not None
        assert value.dtype is not None
        return np.asarray(laid_out(layout, weights), value.dtype.numpy())

    found: dict[str, NDArray[np.float32]] = {}
    with one_thread_a_part() as each:
        run = SegmentedRun(graph, [feed_of(graph, ids) for ids in texts], weight, each)
        for done, names in enumerate(layers):
            for name, arrays in zip(names, run.several([outputs[name] for name in names]), strict=True):
                found[name] = _scales(arrays)
            on_part(done + 1, len(layers), "layer")
    logger.info("scaled the cache of %d layers by %d tokens", len(layers), sum(ids.size for ids in texts))
    return found


def _scales(arrays: Sequence[Array]) -> NDArray[np.float32]:
    largest = np.max([np.abs(array).max(axis=(0, 2), keepdims=True) for array in arrays], axis=0).astype(np.float64)
    largest = np.maximum(largest, _LEAST * max(float(largest.max()), _LEAST))
    return _rounded_up(largest * (MARGIN / HIGHEST)).astype(np.float32)


def _rounded_up(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """The next number above each that has `_BITS` bits."""
    fractions, exponents = np.frexp(numbers)
    rounded: NDArray[np.float64] = np.ldexp(np.ceil(fractions * math.ldexp(1, _BITS)), exponents - _BITS)
    return rounded
