"""Which case is traced layer by layer, and what comes of it in the report."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from exporter.activations import Feed
from exporter.case import Case
from exporter.layout import Layout
from exporter.report import ParityReport
from exporter.source import Source
from exporter.trace import trace

logger = logging.getLogger(__name__)

MOST_POSITIONS = 256
"""A passing report is traced on a case of at most this many positions, to cost little."""


def with_layers(
    report: ParityReport,
    source: Source,
    path: Path,
    sources: Mapping[str, tuple[str, ...]],
    cases: Sequence[Case],
    feed: Feed,
) -> ParityReport:
    """`report` with the activations of one case: the smallest that failed, else the first of moderate size."""
    results = {result.name: result for result in report.targets["onnx"]}
    failed = [case for case in cases if case.name in results and not results[case.name].passed]
    ran = [case for case in failed if not results[case.name].fault]
    moderate = [case for case in cases if case.name in results and 1 < case.positions <= MOST_POSITIONS]
    candidates = sorted(ran, key=lambda case: case.positions) if ran else [] if failed else moderate
    if not candidates:
        return report
    case = candidates[0]
    try:
        layers = trace(source.reference(), source.weights, path, sources, case, feed)
    except Exception as error:  # the verdict stands without it; onnxruntime's errors share no base class
        logger.info("tracing %s failed", case.name, exc_info=True)
        return replace(report, notes=(*report.notes, f"the layers could not be traced: {' '.join(str(error).split())}"))
    return replace(report, layers=layers, layers_case=case.name)


def initializer_sources(source: Source, layouts: Mapping[str, Layout]) -> dict[str, tuple[str, ...]]:
    """By initializer, the names of the source tensor that it holds: several where weights are tied."""
    first = source.first_names()
    return {
        name: tuple(other for other, kept in first.items() if kept == first.get(layout.source, layout.source))
        for name, layout in layouts.items()
    }
