"""The files of an artifact, staged or published, against their source."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from gpt_export.artifact.manifest import Manifest
from gpt_export.artifact.reading import Artifact
from gpt_export.errors import ArtifactError, ParityError
from gpt_export.gate.case import Need
from gpt_export.gate.cases import choose_cases
from gpt_export.gate.codes_check import check_codes
from gpt_export.gate.determinism import random_nodes, wrong_defaults
from gpt_export.gate.report import ParityReport, WeightsResult
from gpt_export.gate.runs import Run, feed_graph, run_of_module, run_of_session
from gpt_export.gate.settings import GateSettings
from gpt_export.gate.tracing.select import initializer_sources, with_layers
from gpt_export.gate.validate import Candidate, validate
from gpt_export.gate.weights_check import check_torchscript, check_weights
from gpt_export.graph import torchscript
from gpt_export.progress import OnStage, ignore
from gpt_export.runtime.session import Session
from gpt_export.sources.source import Source
from gpt_export.weights.layout import Layout
from gpt_export.weights.quantize.schemes import PLANS, Precision

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
    with tempfile.TemporaryDirectory(prefix="gpt-export-") as scratch:
        return compare_artifact(artifact, source, settings, Path(scratch), on_stage)


def raise_if_failed(report: ParityReport, consequence: str, manifest: Manifest | None = None) -> None:
    """Raises a `ParityError` that names the first failure of what `manifest` describes, if there is one."""
    if failures := report.failures:
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        where = f"; {report.first_fault.explain()}" if report.first_fault else ""
        raise ParityError(f"the export is not the model: {failures[0]}{more}{where}; {consequence}", report, manifest)


def compare_artifact(
    artifact: Artifact, source: Source, settings: GateSettings, scratch: Path, on_stage: OnStage
) -> ParityReport:
    """The report on every file of `artifact`; the reference's logits are kept in `scratch` meanwhile."""
    variants = artifact.manifest.variants
    layouts = {
        name: {weight: Layout.from_dict(layout) for weight, layout in variant["weights"].items()}
        for name, variant in variants.items()
    }
    faults: list[str] = []
    on_stage("compare weights")
    weights = _compare_weights(artifact, source, layouts)
    quantized = {name: check_codes(artifact.variant_path(name), source.weights, layouts[name]) for name in variants}
    source.let_go()
    for name in variants:
        faults += random_nodes(artifact.variant_path(name)) + wrong_defaults(artifact.variant_path(name))
        faults += [f"{name}, {fault}" for fault in quantized[name].faults]
    cases = choose_cases(source, settings)
    candidates = {target_name(name): _candidate(artifact, name, source, settings) for name in variants}
    if TORCHSCRIPT_PATH in artifact.manifest.files:

        def run_torchscript() -> Run:
            module = torchscript.load(artifact.folder / TORCHSCRIPT_PATH)
            faults.extend(check_torchscript(module, source.weights))
            source.let_go()
            return run_of_module(module)

        candidates["torchscript"] = Candidate(run_torchscript, frozenset(("ids",)), settings.allowed)
    found = validate(
        source.reference,
        candidates,
        cases,
        scratch,
        on_stage,
        describe=source.describe_token,
        let_go=source.let_go,
    )
    listed = next(iter(layouts.values()), {})
    report = ParityReport(
        targets=found.results,
        weights=weights,
        noise=found.noise,
        limits=settings.allowed,
        faults=tuple(faults),
        notes=(*source.notes, *_unlisted(source, listed), *found.notes),
        opened=found.opened,
        quantized={name: result.to_dict() for name, result in quantized.items() if result.matrices},
    )
    if BASE not in variants:
        return report
    on_stage("trace layers")
    sources = initializer_sources(source, layouts[BASE])
    return with_layers(report, source, artifact.variant_path(BASE), sources, cases, feed_graph(source.cache))


def target_name(variant: str) -> str:
    """What a variant is called among the targets of a report: float32 is `onnx`, the others go by their own name."""
    return "onnx" if variant == BASE else variant


def _candidate(artifact: Artifact, variant: str, source: Source, settings: GateSettings) -> Candidate:
    # Prepacking costs a copy of the weights, but where they are quantised it also decides the arithmetic: without it
    # MatMulNBits leaves what it reads in float32, and nobody runs it so.
    prepack = variant in PLANS

    def opened() -> Run:
        return run_of_session(Session.open(artifact.folder, variant=variant, verify=False, prepack=prepack))

    takes: frozenset[Need] = frozenset(("ids", "mask", "cache") if source.cache else ("ids",))
    return Candidate(opened, takes, settings.allowed_for(cast(Precision, variant)))


def _compare_weights(
    artifact: Artifact, source: Source, layouts: Mapping[str, Mapping[str, Layout]]
) -> WeightsResult | None:
    """The weights that are stored as numbers, of all variants; None for an artifact of TorchScript alone."""
    if not layouts:
        return None
    results = []
    for variant, own in layouts.items():
        plain = {name: layout for name, layout in own.items() if layout.coded is None}
        results.append((variant, check_weights(artifact.variant_path(variant), source.weights, plain)))
    return WeightsResult(
        checked=sum(result.checked for _, result in results),
        size_bytes=sum(result.size_bytes for _, result in results),
        mismatches=tuple(
            fault if variant == BASE else f"{variant}, {fault}"
            for variant, result in results
            for fault in result.mismatches
        ),
    )


def _unlisted(source: Source, layouts: Mapping[str, Layout]) -> tuple[str, ...]:
    """A note on source tensors that are no weights of the graph, if it has weights."""
    listed = {name for layout in layouts.values() for name in layout.sources}
    names = sorted(name for name, first in source.first_names().items() if not {name, first} & listed)
    if not layouts or not names:
        return ()
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return (f"not among the graph's weights, because unused or folded into a constant by torch: {shown}",)
