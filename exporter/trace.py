"""Where a graph leaves its model: activations of both along the graph, each in units of its own float32 noise."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from torch import Tensor, nn

from exporter.activations import Array, Feed, eager_activations, graph_activations, joined
from exporter.anchors import Anchor, End, find_anchors
from exporter.case import Case
from exporter.causes import likely_cause
from exporter.limits import LIMITS, NOISE_FLOOR
from exporter.noise import ASSUMED_NOISE, in_double
from exporter.parity import rounded
from exporter.report import Deviation

logger = logging.getLogger(__name__)


def trace(
    reference: nn.Module,
    weights: Mapping[str, Tensor],
    path: Path,
    sources: Mapping[str, tuple[str, ...]],
    case: Case,
    feed: Feed,
) -> tuple[Deviation, ...]:
    """Every activation that can be found in both, in the graph's order; the first beyond its limit has a cause.

    Args:
        reference: the eager module.
        weights: its parameters by name, for the search of a cause.
        path: the `.onnx` file.
        sources: by initializer of the file, the parameters that it holds.
        feed: runs the case through a session on the file and returns the tensors asked for.
    """
    model = onnx.load(path, load_external_data=False)
    anchors = find_anchors(model.graph, sources)
    names = {name for anchor in anchors for name in anchor.modules}
    expected = eager_activations(reference, case, names)
    exact = _in_double(reference, case, names)
    found = graph_activations(path, case, [anchor.tensor for anchor in anchors], feed)
    deviations = []
    for anchor in anchors:
        wanted = joined(expected, anchor.modules, anchor.end)
        got = found.get(anchor.tensor)
        if wanted is None or got is None or wanted.shape != got.shape:
            continue
        noise = joined(exact, anchor.modules, anchor.end) if exact else None
        deviations.append(_deviation(anchor, wanted, got, noise))
    for i, deviation in enumerate(deviations):
        if deviation.ratio > 1:
            cause = likely_cause(deviation, model.graph, weights, expected, found, anchors)
            deviations[i] = replace(deviation, cause=cause)
            break
    return tuple(deviations)


def _in_double(reference: nn.Module, case: Case, names: set[str]) -> dict[tuple[str, End], Array] | None:
    try:
        with in_double(reference):
            return eager_activations(reference, case, names)
    except (RuntimeError, TypeError) as error:
        logger.info("the module does not run in float64 layer by layer: %s", error)
        return None


def _deviation(anchor: Anchor, wanted: Array, got: Array, exact: Array | None) -> Deviation:
    scale = float(np.sqrt(np.mean(np.square(wanted, dtype=np.float64))))
    noise = float(np.abs(wanted - exact).max()) / scale if exact is not None and scale else ASSUMED_NOISE
    factor = LIMITS["fp32"].noise_factor or 0.0
    limit = factor * max(noise, NOISE_FLOOR) * scale
    with np.errstate(invalid="ignore"):
        error = np.abs(got.astype(np.float64) - wanted)
    error = np.where(np.isfinite(error), error, np.inf)
    index = np.unravel_index(int(error.argmax()), error.shape)
    worst = float(error[index])
    return Deviation(
        layer=anchor.layer,
        part=anchor.part,
        module=anchor.label,
        operator=anchor.operator,
        tensor=anchor.tensor,
        shape=tuple(wanted.shape),
        max_abs=rounded(worst),
        limit=rounded(limit),
        ratio=rounded(worst / limit) if limit else (0.0 if worst == 0 else 1e300),
        worst_index=tuple(int(i) for i in index),
        expected=rounded_signed(float(wanted[index])),
        found=rounded_signed(float(got[index])),
    )


def rounded_signed(value: float) -> float:
    """Seven significant digits; a number that is not finite becomes the largest one that JSON has, with its sign."""
    return float(f"{value:.7g}") if np.isfinite(value) else float(np.copysign(1e300, value))
