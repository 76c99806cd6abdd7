"""Candidates, and what is known of them before they run, to the report: a verdict is put together here alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt_export.gate.case import Case
from gpt_export.gate.limits import Limits
from gpt_export.gate.measured_on import measured_on
from gpt_export.gate.report import ParityReport, WeightsResult
from gpt_export.gate.tracing.activations import Feed
from gpt_export.gate.tracing.select import with_layers
from gpt_export.gate.validate import Candidate, validate
from gpt_export.progress import OnStage
from gpt_export.sources.source import Source


@dataclass(frozen=True, slots=True)
class Traced:
    """The graph that is followed layer by layer: its file, the parameters of each initializer, and how it is fed."""

    path: Path
    sources: Mapping[str, tuple[str, ...]]
    feed: Feed


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is judged: the files to run, and what was found in them without running."""

    candidates: Mapping[str, Candidate]
    """By target."""
    traced: Traced | None
    weights: WeightsResult | None = None
    faults: list[str] = field(default_factory=list)
    """What forbids to believe the files whatever they compute; opening a candidate may add to it."""
    notes: tuple[str, ...] = ()
    quantized: Mapping[str, Any] = field(default_factory=dict)
    long: tuple[Case, ...] = ()
    """Cases that need not be run whole where the first layers tell enough; see `gpt_export.gate.context_end`."""


def judge(
    source: Source, subject: Subject, cases: tuple[Case, ...], limits: Limits, scratch: Path, on_stage: OnStage
) -> ParityReport:
    """The report on `subject` against the reference of `source`.

    Args:
        limits: those of float32, for the report; each candidate has its own.
        scratch: a folder for the reference's logits.
    """
    found = validate(
        source.reference,
        subject.candidates,
        cases,
        scratch,
        on_stage,
        head=source.answers,
        vocab_size=source.vocab_size,
        describe=source.describe_token,
        let_go=source.let_go,
        published=source.published,
        long=subject.long,
    )
    report = ParityReport(
        targets=found.results,
        weights=subject.weights,
        noise=found.noise,
        limits=limits,
        reference_faults=found.faults,
        faults=(*subject.faults, *(fault for each in subject.candidates.values() for fault in each.faults())),
        notes=(*source.notes, *subject.notes, *found.notes),
        opened=found.opened,
        judged_against=source.judged_against,
        measured_on=measured_on(),
        quantized=subject.quantized,
    )
    if subject.traced is None or not found.is_finite:
        return report
    on_stage("trace layers")
    traced = subject.traced
    return with_layers(report, source, traced.path, traced.sources, cases, traced.feed)
