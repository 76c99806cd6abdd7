"""The stages in order. The only orchestration: every stage is a function elsewhere."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from gpt_export_models.tokenizer_files import place_of
from numpy.typing import NDArray

from gpt_export.artifact.hashing import sha256_of
from gpt_export.artifact.libraries import library_versions
from gpt_export.artifact.manifest import MANIFEST_NAME, Manifest, dump
from gpt_export.artifact.reading import Artifact
from gpt_export.artifact.staging import check_output, stage
from gpt_export.artifact.variant_names import variant_name
from gpt_export.gate.case import Case
from gpt_export.gate.cases import choose_cases
from gpt_export.graph import torchscript
from gpt_export.graph.script import script
from gpt_export.passes.quantized.cache_codes import attentions
from gpt_export.passes.quantized.cache_scales import cache_scales
from gpt_export.passes.quantized.calibration import calibrate
from gpt_export.pipeline.cache_scaling import scaling_texts
from gpt_export.pipeline.calibration_text import calibration_windows
from gpt_export.pipeline.comparison import TORCHSCRIPT_PATH, compare_artifact, raise_if_failed
from gpt_export.pipeline.config import ExportConfig
from gpt_export.pipeline.graphs import scripts, source_and_graph, without_script
from gpt_export.pipeline.variants import VARIANT_PATHS, in_profile, write_variant
from gpt_export.progress import OnStage, ignore, parts_of
from gpt_export.report.page import REPORT_NAME, report_html
from gpt_export.sources.source import Source
from gpt_export.targets import READERS, write_consumer_files
from gpt_export.weights.quantize.schemes import PLANS, Precision

logger = logging.getLogger(__name__)

PARITY_NAME = "parity.json"
_NEARLY_ALL = 0.95
_BITS: Mapping[Precision, int] = {"fp32": 32, "fp16": 16, "int8": 8, "int4": 4}
"""Of a weight in the file, without scales and without what stays float32."""


def export(
    source: Source,
    config: ExportConfig,
    output: Path,
    *,
    model: ir.Model | None = None,
    replace: bool = False,
    on_stage: OnStage = ignore,
) -> Artifact:
    """Publishes a validated artifact at `output`, or raises and leaves `output` untouched.

    Args:
        model: the graph of `source` where there is one already, its weights inputs; made if left out.

    Raises:
        GptExportError: what failed, with its exit code; `ParityError` when the outputs or weights are not the
            reference's and the gate is enforced.
    """
    check_output(output, replace=replace)
    if model is None:
        source = without_script(source, config)
    if config.onnx and model is None:
        source, model = source_and_graph(source, config, on_stage)
    config = settled(config, source)
    cases = choose_cases(source, config.gate_settings, whole_text=not config.floats_alone)
    with stage(output, replace=replace, needed_bytes=_needed_bytes(source, config, cases)) as staged:
        written = _write_files(staged.folder, source, config, model, on_stage)
        draft = Artifact(staged.folder, _manifest(staged.folder, source, config, written))
        write_consumer_files(staged.folder, draft.manifest)
        model_files = _files(staged.folder)  # what comes from here on tells what was measured
        report, parity = None, None
        if config.gate != "off":
            with tempfile.TemporaryDirectory(dir=staged.folder) as scratch:
                report = compare_artifact(draft, source, config.gate_settings, cases, Path(scratch), on_stage)
            if config.gate == "enforce":
                raise_if_failed(report, "nothing was published", draft.manifest)
            parity = report.summary()
            (staged.folder / PARITY_NAME).write_text(dump(report.to_dict()), encoding="utf-8")
        write_consumer_files(staged.folder, dataclasses.replace(draft.manifest, parity=parity), READERS)
        manifest = _manifest(staged.folder, source, config, written, parity, model_files)
        if report is not None:  # the page lists every other file
            (staged.folder / REPORT_NAME).write_text(report_html(report, manifest), encoding="utf-8")
            manifest = _manifest(staged.folder, source, config, written, parity, model_files)
        (staged.folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
        on_stage("publish")
        return Artifact(staged.publish(), manifest)


def settled(config: ExportConfig, source: Source) -> ExportConfig:
    """`config` with what it left to the source decided, whose graph is known."""
    torchscript = config.torchscript
    if torchscript is None:
        torchscript = not config.onnx or (source.torchscript and scripts(source))
    fused = source.cache is not None or not config.floats_alone
    profile = config.profile or ("ort" if fused else "portable")
    return dataclasses.replace(config, torchscript=torchscript, profile=profile)


@dataclass(frozen=True, slots=True)
class _Written:
    """What `_write_files` left in the staging folder."""

    variants: Mapping[str, Mapping[str, Any]]
    hashes: Mapping[Path, str]


def _write_files(
    folder: Path,
    source: Source,
    config: ExportConfig,
    model: ir.Model | None,
    on_stage: OnStage,
) -> _Written:
    variants: dict[str, Mapping[str, Any]] = {}
    hashes: dict[Path, str] = {}
    for path in source.carried:
        place = folder / place_of(path)
        place.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, place)
    for name, content in source.made.items():
        (folder / name).write_bytes(content)
    if model is not None:
        (folder / "onnx").mkdir()
        base = in_profile(model, source, config)
        scales = _cache_scales(base, source, config, on_stage)
        calibrated = None
        for precision, cache in config.variants:
            if precision == "int4" and config.calibration is not None and calibrated is None:
                on_stage("calibrate int4")
                windows = calibration_windows(source, config.calibration)
                calibrated = calibrate(base, source.weights, windows, PLANS[precision], parts_of(on_stage))
            name = variant_name(precision, cache)
            on_stage(f"write {name}")
            file = write_variant(
                base,
                precision,
                source,
                config,
                folder / VARIANT_PATHS[name],
                calibrated if precision == "int4" else None,
                scales if cache == "int8" else None,
                parts_of(on_stage),
            )
            variants[name] = {"path": VARIANT_PATHS[name], **file.description}
            hashes.update(file.hashes)
    if config.torchscript:
        on_stage("write TorchScript")
        (folder / TORCHSCRIPT_PATH).parent.mkdir()
        hashes[folder / TORCHSCRIPT_PATH] = torchscript.save(script(source.reference()), folder / TORCHSCRIPT_PATH)
    return _Written(variants, hashes)


def _cache_scales(
    base: ir.Model, source: Source, config: ExportConfig, on_stage: OnStage
) -> Mapping[str, NDArray[np.float32]] | None:
    """The scales of a cache of 8 bits; None where none is asked for."""
    if "int8" not in config.kv_caches:
        return None
    attentions(base)  # refused before anything runs
    on_stage("scale the cache")
    texts = scaling_texts(source, config.calibration)
    return cache_scales(base, source.weights, texts, parts_of(on_stage))


def _manifest(
    folder: Path,
    source: Source,
    config: ExportConfig,
    written: _Written,
    parity: Mapping[str, Any] | None = None,
    model_files: Collection[Path] | None = None,
) -> Manifest:
    paths = _files(folder)
    return Manifest(
        name=source.name,
        source=source.record,
        export=config.to_dict(),
        model={
            "vocab_size": source.vocab_size,
            "context_length": source.context_length,
            "turns": [turn for turn in source.turns if turn < source.context_length],
            "head": source.graph_head.to_dict(),
            "judged_against": source.judged_against,
            "tokenizer": None if source.tokenizer is None else source.tokenizer.name,
            "configuration": dict(source.configuration),
            "notes": [*source.notes, *_left_in_float(written.variants)],
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
        measured=[path.relative_to(folder).as_posix() for path in paths if path not in (model_files or paths)],
    )


def _left_in_float(variants: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A note on each quantised variant in which much is not quantised."""
    shares = {name: variant.get("quantized_share") for name, variant in variants.items()}
    return [
        f"{share:.0%} of the weights in products are quantised in {name}; the others, which are multiplied in batches "
        "as those of experts are, or are made on the way, stay float32"
        for name, share in shares.items()
        if share is not None and share < _NEARLY_ALL
    ]


def _files(folder: Path) -> list[Path]:
    """Every file of the staging folder but the manifest."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST_NAME)


def _needed_bytes(source: Source, config: ExportConfig, cases: tuple[Case, ...]) -> int:
    """About what an export takes on disk at its largest: every file, and eager's logits where they are compared."""
    numbers = sum(source.weights[name].numel() for name in set(source.first_names().values()))
    bits = sum(_BITS[precision] for precision, _ in config.variants) if config.onnx else 0
    bits += 2 * 32 if config.torchscript else 0  # TorchScript is drafted and then written canonically
    positions = sum(case.positions for case in cases) if config.gate != "off" else 0
    return bits * numbers // 8 + 4 * source.answers.width * positions
