"""Which case is traced layer by layer, and what comes of it in the report."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from gpt_export.gate.case import Case
from gpt_export.gate.report import CaseResult, ParityReport
from gpt_export.gate.tracing.activations import Feed
from gpt_export.gate.tracing.trace import trace
from gpt_export.sources.source import Source
from gpt_export.weights.layout import Layout

logger = logging.getLogger(__name__)

MOST_POSITIONS = 256
"""A case of at most this many positions is traced, if there is one: every activation is kept, of both sides."""
ENOUGH_TOKENS = 17
_NEEDS = ("ids", "mask", "cache")


def with_layers(
    report: ParityReport,
    source: Source,
    path: Path,
    sources: Mapping[str, tuple[str, ...]],
    cases: Sequence[Case],
    feed: Feed,
) -> ParityReport:
    """`report` with the activations of one case: the one that tells most of a failure, else one of moderate size."""
    case = telling_case(cases, {result.name: result for result in report.targets["onnx"]})
    if case is None:
        return report
    try:
        layers = trace(source.reference(), source.weights, path, sources, case, feed)
    except Exception as error:  # the verdict stands without it; onnxruntime's errors share no base class
        logger.info("tracing %s failed", case.name, exc_info=True)
        return replace(report, notes=(*report.notes, f"the layers could not be traced: {' '.join(str(error).split())}"))
    return replace(report, layers=layers, layers_case=case.name)


def telling_case(cases: Sequence[Case], results: Mapping[str, CaseResult]) -> Case | None:
    """The case to trace.

    Of a passing report it is one row of moderate length, which costs least: the last such one, because random ids tell
    more than repeated ones.
    Of cases that failed in their numbers it is one that fails clearly, without padding and past if such a one fails,
    and with several tokens. Of cases that did not run it is the smallest.
    """
    taken = [case for case in cases if case.name in results]
    failed = [case for case in taken if not results[case.name].passed]
    if not failed:
        moderate = [case for case in taken if 1 < case.positions <= MOST_POSITIONS]
        return max(reversed(moderate), key=lambda case: (len(case.ids) == 1, _told(case)), default=None)
    numbers = [case for case in failed if not results[case.name].fault]
    if not numbers:  # a case that stops names its node; one whose logits have another shape does not
        return min(failed, key=lambda case: ("does not" not in results[case.name].fault, case.behind, case.positions))
    worst = max(_badness(results[case.name]) for case in numbers)
    clear = [case for case in numbers if _badness(results[case.name]) >= worst / 100]
    small = [case for case in clear if case.positions <= MOST_POSITIONS]
    if not small:
        return min(clear, key=lambda case: case.positions)

    def tells(case: Case) -> tuple[float, ...]:
        return -_NEEDS.index(case.needs), -case.behind, _told(case), _badness(results[case.name])

    return max(small, key=tells)


def initializer_sources(source: Source, layouts: Mapping[str, Layout]) -> dict[str, tuple[str, ...]]:
    """By initializer, the names of the source tensor that it holds: several where weights are tied."""
    first = source.first_names()
    return {
        name: layout.sources
        if len(layout.sources) > 1
        else tuple(other for other, kept in first.items() if kept == first.get(layout.sources[0], layout.sources[0]))
        for name, layout in layouts.items()
    }


def _told(case: Case) -> int:
    """How much a case can tell: the tokens of a row, or of the second piece that is fed."""
    start, stop = case.cuts()[:2][-1]
    return min(stop - start, ENOUGH_TOKENS) if len(case.cuts()) == 1 else stop - start


def _badness(result: CaseResult) -> float:
    return float("inf") if result.non_finite else result.strain
