"""The stages in order. The only orchestration: every stage is a function elsewhere."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from exporter import torchscript
from exporter.artifact import Artifact
from exporter.config import ExportConfig
from exporter.errors import ArtifactError, GraphError, ParityError
from exporter.gate.case import Case
from exporter.gate.cases import choose_cases
from exporter.gate.determinism import random_nodes
from exporter.gate.report import ParityReport
from exporter.gate.runs import Run, feed_graph, run_of_module, run_of_session
from exporter.gate.validate import Candidate, validate
from exporter.gate.weights_check import check_torchscript, check_weights
from exporter.graph import to_onnx
from exporter.hashing import sha256_of
from exporter.html.page import REPORT_NAME, report_html
from exporter.layout import Layout
from exporter.libraries import library_versions
from exporter.manifest import MANIFEST_NAME, Manifest, dump
from exporter.onnx_file import write_onnx
from exporter.passes import portable_passes, run_passes
from exporter.progress import OnStage, ignore
from exporter.runtime import Session
from exporter.script import script, script_cached
from exporter.signature import example_sizes
from exporter.source import Source
from exporter.staging import check_output, stage
from exporter.tracing.select import initializer_sources, with_layers

logger = logging.getLogger(__name__)

ONNX_PATH = "onnx/model.onnx"
TORCHSCRIPT_PATH = "torchscript/model.pt"
PARITY_NAME = "parity.json"
VARIANT = "fp32"


def export(
    source: Source, config: ExportConfig, output: Path, *, replace: bool = False, on_stage: OnStage = ignore
) -> Artifact:
    """Publishes a validated artifact at `output`, or raises and leaves `output` untouched.

    Raises:
        GptExportError: what failed, with its exit code; `ParityError` when the outputs or weights are not the
            reference's and the gate is enforced.
    """
    check_output(output, replace=replace)
    if config.torchscript is None:
        config = dataclasses.replace(config, torchscript=source.torchscript or not config.onnx)
    cases = choose_cases(source, config)
    model = build_graph(source, config, on_stage) if config.onnx else None
    with stage(output, replace=replace, needed_bytes=_needed_bytes(source, config, cases)) as staged:
        written = _write_files(staged.folder, source, config, model, on_stage)
        draft = Artifact(staged.folder, _write_manifest(staged.folder, source, config, written, parity=None))
        manifest = draft.manifest
        if config.gate != "off":
            with tempfile.TemporaryDirectory(dir=staged.folder) as scratch:
                report = _compare(draft, source, config, written.layouts, Path(scratch), on_stage)
            if config.gate == "enforce":
                raise_if_failed(report, "nothing was published", manifest)
            (staged.folder / PARITY_NAME).write_text(dump(report.to_dict()), encoding="utf-8")
            manifest = _write_manifest(staged.folder, source, config, written, parity=report.summary())
            (staged.folder / REPORT_NAME).write_text(report_html(report, manifest), encoding="utf-8")
            manifest = _write_manifest(staged.folder, source, config, written, parity=report.summary())
        on_stage("publish")
        return Artifact(staged.publish(), manifest)


def build_graph(source: Source, config: ExportConfig, on_stage: OnStage = ignore) -> ir.Model:
    """The finished graph of `source`, its weights still inputs.

    A module that does not run on the meta device (it holds loose tensors, or names a device) is exported with its
    weights in place; the graph is the same, the memory is not.

    Raises:
        ScriptError: the module does not script.
        GraphError: the script has no ONNX form.
    """
    signature = source.signature()
    on_stage("script")
    scripted = script_cached(source.skeleton, source.cache.n_layers) if source.cache else script(source.skeleton)
    on_stage("graph")
    try:
        model = to_onnx(scripted, signature, config.opset, example_sizes(source.context_length), "meta")
    except GraphError as error:
        if source.cache:  # our own decoder exports on meta; if it does not, weights would not help
            raise
        logger.info("no graph without weights (%s); exporting with the weights in place", error)
        scripted = script(source.reference())
        model = to_onnx(scripted, signature, config.opset, example_sizes(source.context_length), "cpu")
    on_stage("passes")
    return run_passes(model, portable_passes(source.first_names()))


def validate_artifact(
    artifact: Artifact, source: Source, config: ExportConfig, *, on_stage: OnStage = ignore
) -> ParityReport:
    """The published files of `artifact` against `source`, over the cases of `config`. Hashes are checked first.

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
    layouts = {}
    if variant := artifact.manifest.variants.get(VARIANT):
        layouts = {name: Layout.from_dict(layout) for name, layout in variant["weights"].items()}
    with tempfile.TemporaryDirectory(prefix="gpt-export-") as scratch:
        return _compare(artifact, source, config, layouts, Path(scratch), on_stage)


def raise_if_failed(report: ParityReport, consequence: str, manifest: Manifest | None = None) -> None:
    """Raises a `ParityError` that names the first failure of what `manifest` describes, if there is one."""
    if failures := report.failures:
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        where = f"; {report.first_fault.explain()}" if report.first_fault else ""
        raise ParityError(f"the export is not the model: {failures[0]}{more}{where}; {consequence}", report, manifest)


@dataclass(frozen=True, slots=True)
class _Written:
    """What `_write_files` left in the staging folder."""

    variants: Mapping[str, Mapping[str, Any]]
    layouts: Mapping[str, Layout]
    hashes: Mapping[Path, str]


def _write_files(
    folder: Path, source: Source, config: ExportConfig, model: ir.Model | None, on_stage: OnStage
) -> _Written:
    variants: dict[str, Mapping[str, Any]] = {}
    layouts: Mapping[str, Layout] = {}
    hashes: dict[Path, str] = {}
    for path in source.carried:
        shutil.copyfile(path, folder / path.name)
    if model is not None:
        on_stage("write weights")
        (folder / ONNX_PATH).parent.mkdir()
        file = write_onnx(
            model,
            source.weights,
            source.signature(),
            folder / ONNX_PATH,
            cache=source.cache,
            single_file=config.single_file,
        )
        variants[VARIANT] = {"path": ONNX_PATH, **file.description}
        layouts = file.layouts
        hashes.update(file.hashes)
    if config.torchscript:
        on_stage("write TorchScript")
        (folder / TORCHSCRIPT_PATH).parent.mkdir()
        hashes[folder / TORCHSCRIPT_PATH] = torchscript.save(script(source.reference()), folder / TORCHSCRIPT_PATH)
    return _Written(variants, layouts, hashes)


def _write_manifest(
    folder: Path, source: Source, config: ExportConfig, written: _Written, parity: Mapping[str, Any] | None
) -> Manifest:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST_NAME)
    manifest = Manifest(
        name=source.name,
        source=source.record,
        export=config.to_dict(),
        model={
            "vocab_size": source.vocab_size,
            "context_length": source.context_length,
            "tokenizer": None if source.tokenizer is None else source.tokenizer.name,
            "configuration": dict(source.configuration),
            "notes": list(source.notes),
        },
        variants=written.variants,
        libraries=library_versions(),
        parity=parity,
        files={
            path.relative_to(folder).as_posix(): {
                "sha256": written.hashes.get(path) or sha256_of(path),
                "size_bytes": path.stat().st_size,
            }
            for path in paths
        },
    )
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def _compare(
    artifact: Artifact,
    source: Source,
    config: ExportConfig,
    layouts: Mapping[str, Layout],
    scratch: Path,
    on_stage: OnStage,
) -> ParityReport:
    weights = None
    faults: tuple[str, ...] = ()
    cases = choose_cases(source, config)
    candidates: dict[str, Candidate] = {}
    if VARIANT in artifact.manifest.variants:
        on_stage("compare weights")
        weights = check_weights(artifact.variant_path(VARIANT), source.weights, layouts)
        source.let_go()
        candidates["onnx"] = Candidate(
            lambda: run_of_session(Session.open(artifact.folder, variant=VARIANT, verify=False, prepack=False)),
            frozenset(("ids", "mask", "cache") if source.cache else ("ids",)),
        )
        faults += random_nodes(artifact.variant_path(VARIANT))
    if TORCHSCRIPT_PATH in artifact.manifest.files:

        def run_torchscript() -> Run:
            nonlocal faults
            module = torchscript.load(artifact.folder / TORCHSCRIPT_PATH)
            faults += check_torchscript(module, source.weights)
            source.let_go()
            return run_of_module(module)

        candidates["torchscript"] = Candidate(run_torchscript, frozenset(("ids",)))
    found = validate(
        source.reference,
        candidates,
        cases,
        config.allowed,
        scratch,
        on_stage,
        describe=source.describe_token,
        let_go=source.let_go,
    )
    report = ParityReport(
        targets=found.results,
        weights=weights,
        noise=found.noise,
        limits=config.allowed,
        faults=faults,
        notes=(*source.notes, *_unlisted(source, layouts), *found.notes),
        opened=found.opened,
    )
    if weights is None:
        return report
    on_stage("trace layers")
    path = artifact.variant_path(VARIANT)
    return with_layers(report, source, path, initializer_sources(source, layouts), cases, feed_graph(source.cache))


def _unlisted(source: Source, layouts: Mapping[str, Layout]) -> tuple[str, ...]:
    """A note on source tensors that are no weights of the graph, if it has weights."""
    listed = {name for layout in layouts.values() for name in layout.sources}
    names = sorted(name for name, first in source.first_names().items() if not {name, first} & listed)
    if not layouts or not names:
        return ()
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return (f"not among the graph's weights, because unused or folded into a constant by torch: {shown}",)


def _needed_bytes(source: Source, config: ExportConfig, cases: tuple[Case, ...]) -> int:
    weights = sum(4 * source.weights[name].numel() for name in set(source.first_names().values()))
    copies = int(config.onnx) + 2 * bool(config.torchscript)  # TorchScript is drafted and then written canonically
    return copies * weights + 4 * source.vocab_size * sum(case.positions for case in cases)
