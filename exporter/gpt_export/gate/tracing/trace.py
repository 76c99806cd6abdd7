"""Where a graph leaves its model: activations of both along the graph, each in units of its own float32 noise."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from gpt_export.artifact.onnx_bytes import read_proto
from gpt_export.gate.case import Case
from gpt_export.gate.limits import LIMITS, NOISE_FLOOR
from gpt_export.gate.noise import ASSUMED_NOISE, in_double
from gpt_export.gate.parity import rounded
from gpt_export.gate.report import Deviation
from gpt_export.gate.tracing.activations import Array, Feed, eager_activations, graph_activations, joined
from gpt_export.gate.tracing.anchors import Anchor, End, find_anchors, layer_of, part_of
from gpt_export.gate.tracing.causes import RANDOM_OPERATORS, likely_cause
from gpt_export.gate.tracing.evidence import Evidence
from gpt_export.gate.tracing.order_causes import module_read_for, order_cause
from gpt_export.gate.tracing.stops import stop_of

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

    A graph that stops with an error has one deviation: the node that stopped it.

    Args:
        reference: the eager module.
        weights: its parameters by name, for the search of a cause.
        path: the `.onnx` file.
        sources: by initializer of the file, the parameters that it holds.
        case: what both run.
        feed: runs the case through a session on the file and returns the tensors asked for.
    """
    model = read_proto(path)
    anchors = find_anchors(model.graph, sources)
    # Modules that the graph does not compute are kept as well: their inputs tell what was left out.
    names = {name for anchor in anchors for name in anchor.modules} | {name.rpartition(".")[0] for name in weights}
    # onnxruntime takes a Dropout out of the graph whatever its mode, unless it is told to leave the graph alone.
    as_written = any(node.op_type in RANDOM_OPERATORS for node in model.graph.node)
    tensors = list(dict.fromkeys(anchor.tensor for anchor in anchors))
    try:
        found = graph_activations(path, case, tensors, feed, as_written=as_written)
    except Exception as error:  # onnxruntime's errors share no base class
        stop = stop_of(error, path, model.graph, anchors, case, feed)
        if stop is None:
            raise
        return (stop,)
    expected = eager_activations(reference, case, names)
    exact = _in_double(reference, case, names)
    deviations: list[Deviation] = []
    compared = _telling(anchors, expected, found)
    for anchor, wanted in compared:
        noise = joined(exact, anchor.modules, anchor.end) if exact else None
        deviations.append(_deviation(anchor, wanted, found[anchor.tensor], noise))
    index = next((i for i, deviation in enumerate(deviations) if deviation.ratio > 1), None)
    if index is not None:
        anchor, wanted = compared[index]
        got = found[anchor.tensor]
        evidence = Evidence(anchor, wanted, got, path, model.graph, weights, sources, expected, found, anchors, case)
        deviations[index] = _explained(deviations[index], evidence)
    return tuple(deviations)


def _telling(
    anchors: Sequence[Anchor], expected: Mapping[tuple[str, End], Array], found: Mapping[str, Array]
) -> list[tuple[Anchor, Array]]:
    """The anchors that can be compared, and what eager has there.

    One that says of a tensor what another has said is left out: the input of the module behind the one whose output
    it is. Where the two differ in eager, the graph is put together wrongly, and both are kept.
    """
    said: dict[str, list[Array]] = {}
    telling = []
    for anchor in anchors:
        wanted = joined(expected, anchor.modules, anchor.end)
        got = found.get(anchor.tensor)
        if wanted is None or got is None or wanted.shape != got.shape:
            continue
        if any(np.array_equal(wanted, other) for other in said.get(anchor.tensor, [])):
            continue
        said.setdefault(anchor.tensor, []).append(wanted)
        telling.append((anchor, wanted))
    return telling


def _explained(deviation: Deviation, evidence: Evidence) -> Deviation:
    """The first fault with its cause, at the place where the graph stands when it makes it."""
    if other := module_read_for(evidence):
        return replace(deviation, layer=layer_of(other), part=part_of(other), cause=order_cause(evidence, other))
    return replace(deviation, cause=likely_cause(evidence))


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
