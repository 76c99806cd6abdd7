"""The files of an artifact, staged or published, against their source."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gpt_export_models.scratch import scratch_folder

from gpt_export.artifact.manifest import Manifest
from gpt_export.artifact.onnx_model import read_model
from gpt_export.artifact.reading import Artifact
from gpt_export.errors import ArtifactError, ParityError
from gpt_export.gate.cache_codes_check import CacheCodes
from gpt_export.gate.case import Case, Need
from gpt_export.gate.cases import choose_cases
from gpt_export.gate.codes_check import CodesResult, check_codes
from gpt_export.gate.context_end import long_rows
from gpt_export.gate.determinism import random_nodes, wrong_defaults
from gpt_export.gate.judge import Subject, Traced, judge
from gpt_export.gate.report import ParityReport, WeightsResult
from gpt_export.gate.runs import Run, feed_graph, run_of_module, run_of_session
from gpt_export.gate.settings import GateSettings
from gpt_export.gate.tracing.first_layers import find_first_layers
from gpt_export.gate.tracing.select import initializer_sources
from gpt_export.gate.validate import Candidate
from gpt_export.gate.weights_check import check_torchscript, check_weights
from gpt_export.graph import torchscript
from gpt_export.progress import OnStage, ignore
from gpt_export.runtime.session import Session
from gpt_export.sources.source import Source
from gpt_export.weights.layout import Layout
from gpt_export.weights.quantize.schemes import PLANS

TORCHSCRIPT_PATH = "torchscript/model.pt"
BASE = "fp32"


def validate_artifact(
    artifact: Artifact, source: Source, settings: GateSettings, *, on_stage: OnStage = ignore
) -> ParityReport:
    """The published files of `artifact` against `source`, over the cases of `settings`. Hashes are checked first.

    Raises:
        ArtifactError: the artifact is damaged, or its sizes are not the source's.
    """
    on_stage("verify hashes")
    artifact.verify()
    model = artifact.manifest.model
    for name, found in (("vocab_size", source.vocab_size), ("context_length", source.context_length)):
        if model[name] != found:
            raise ArtifactError(
                f"{artifact.folder} has {name} {model[name]}, {source.name} has {found}; "
                "pass the source it was made from"
            )
    source = dataclasses.replace(source, notes=tuple(model["notes"]))  # what its export found out, roads and all
    cases = choose_cases(source, settings, whole_text=set(artifact.manifest.variants) - {BASE} != set())
    with scratch_folder() as scratch:
        return compare_artifact(artifact, source, settings, cases, scratch, on_stage)


def raise_if_failed(report: ParityReport, consequence: str, manifest: Manifest | None = None) -> None:
    """Raises a `ParityError` that names the first failure of what `manifest` describes, if there is one."""
    if failures := report.failures:
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        where = f"; {report.first_fault.explain()}" if report.first_fault else ""
        if report.reference_faults:  # the export may well be the model: it is the model that is no decoder
            raise ParityError(f"{failures[0]}; {consequence}", report, manifest)
        raise ParityError(f"the export is not the model: {failures[0]}{more}{where}; {consequence}", report, manifest)


def compare_artifact(
    artifact: Artifact,
    source: Source,
    settings: GateSettings,
    cases: tuple[Case, ...],
    scratch: Path,
    on_stage: OnStage,
) -> ParityReport:
    """The report on every file of `artifact`; the reference's logits are kept in `scratch` meanwhile."""
    on_stage("compare weights")
    layouts = {
        name: {weight: Layout.from_dict(layout) for weight, layout in variant["weights"].items()}
        for name, variant in artifact.manifest.variants.items()
    }
    read = {name: _read_variant(artifact, name, source, own) for name, own in layouts.items()}
    source.let_go()
    faults = [fault for name, found in read.items() for fault in found.faults(name)]
    candidates = {target_name(name): _candidate(artifact, name, source, settings) for name in layouts}
    if TORCHSCRIPT_PATH in artifact.manifest.files:
        candidates["torchscript"] = _torchscript_candidate(artifact, source, settings, faults)
    traced, long = None, _long_rows(source, settings, cases)
    if BASE in layouts:
        sources = initializer_sources(source, layouts[BASE])
        path = artifact.variant_path(BASE)
        traced = Traced(path, sources, feed_graph(source.cache))
        if long and source.alike_layers and len(candidates) == 1:
            layers = find_first_layers(path, sources, source.cache)
            candidates = {name: dataclasses.replace(one, first_layers=layers) for name, one in candidates.items()}
    subject = Subject(
        candidates=candidates,
        traced=traced,
        weights=_weights_of({name: found.weights for name, found in read.items()}),
        faults=faults,
        notes=_unlisted(source, next(iter(layouts.values()), {})),
        quantized={name: found.codes.to_dict() for name, found in read.items() if found.codes.matrices},
        long=long,
    )
    return judge(source, subject, cases, settings.allowed, scratch, on_stage)


@dataclass(frozen=True, slots=True)
class _Read:
    """What is found in the file of a variant without running it."""

    weights: WeightsResult
    """Of the weights that are stored as numbers."""
    codes: CodesResult
    wrong: tuple[str, ...]

    def faults(self, variant: str) -> tuple[str, ...]:
        """What forbids to believe the file."""
        return (*self.wrong, *(f"{variant}, {fault}" for fault in self.codes.faults))


def _read_variant(artifact: Artifact, variant: str, source: Source, layouts: Mapping[str, Layout]) -> _Read:
    model = read_model(artifact.variant_path(variant))
    plain = {name: layout for name, layout in layouts.items() if layout.coded is None}
    return _Read(
        weights=check_weights(model, source.weights, plain),
        codes=check_codes(model, source.weights, layouts),
        wrong=(*random_nodes(model), *wrong_defaults(model)),
    )


def _long_rows(source: Source, settings: GateSettings, cases: tuple[Case, ...]) -> tuple[Case, ...]:
    """The cases that need not be run whole; the full set runs every one so."""
    names = source.first_names()
    parameters = sum(source.weights[name].numel() for name in set(names.values()))
    return () if settings.full else tuple(long_rows(cases, parameters))


def target_name(variant: str) -> str:
    """What a variant is called among the targets of a report: float32 is `onnx`, the others go by their own name."""
    return "onnx" if variant == BASE else variant


def _candidate(artifact: Artifact, variant: str, source: Source, settings: GateSettings) -> Candidate:
    # Prepacking costs a copy of the weights, but where they are quantised it also decides the arithmetic: without it
    # MatMulNBits leaves what it reads in float32, and nobody runs it so.
    entry = artifact.manifest.variants[variant]
    prepack = entry.get("precision", variant) in PLANS
    codes = CacheCodes(variant) if entry.get("cache_dtype") == "int8" else None

    def opened() -> Run:
        return run_of_session(Session.of(artifact, variant, prepack=prepack), codes.look if codes else None)

    takes: frozenset[Need] = frozenset(("ids", "mask", "cache") if source.cache else ("ids",))
    return Candidate(opened, takes, settings.allowed_for(variant), faults=codes.faults if codes else tuple)


def _torchscript_candidate(artifact: Artifact, source: Source, settings: GateSettings, faults: list[str]) -> Candidate:
    """`model.pt`, whose weights are compared when it is opened; what is wrong with them is added to `faults`."""

    def opened() -> Run:
        module = torchscript.load(artifact.folder / TORCHSCRIPT_PATH)
        faults.extend(check_torchscript(module, source.weights))
        source.let_go()
        return run_of_module(module)

    return Candidate(opened, frozenset(("ids",)), settings.allowed)


def _weights_of(results: Mapping[str, WeightsResult]) -> WeightsResult | None:
    """The weights of all variants together; None for an artifact of TorchScript alone."""
    if not results:
        return None
    return WeightsResult(
        checked=sum(result.checked for result in results.values()),
        size_bytes=sum(result.size_bytes for result in results.values()),
        mismatches=tuple(
            fault if variant == BASE else f"{variant}, {fault}"
            for variant, result in results.items()
            for fault in result.mismatches
        ),
    )


def _unlisted(source: Source, layouts: Mapping[str, Layout]) -> tuple[str, ...]:
    """A note on source tensors that are no weights of the graph, if it has weights."""
    first_names = source.first_names()
    listed = {first_names.get(name, name) for layout in layouts.values() for name in layout.sources}
    names = sorted(name for name, first in first_names.items() if first not in listed)
    if not layouts or not names:
        return ()
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return (f"not among the graph's weights, because unused or folded into a constant by torch: {shown}",)
