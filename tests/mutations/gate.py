"""A fault through the gate: the good artifact is exported once, each fault is validated against the good source."""

from __future__ import annotations

import dataclasses
import functools
import shutil
from pathlib import Path
from unittest import mock

import onnx
from gpt_export.artifact.hashing import sha256_of
from gpt_export.artifact.manifest import MANIFEST_NAME
from gpt_export.artifact.onnx_model import read_model
from gpt_export.artifact.reading import Artifact
from gpt_export.gate.report import ParityReport, WeightsResult
from gpt_export.gate.weights_check import check_weights
from gpt_export.pipeline import stages
from gpt_export.pipeline.comparison import BASE
from gpt_export.pipeline.config import ExportConfig
from gpt_export.pipeline.strangers import validate_against
from gpt_export.pipeline.variants import VARIANT_PATHS
from gpt_export.sources.source import Source
from gpt_export.weights.layout import Layout
from gpt_export_models.blank import blank

from tests.mutations.faults import TIED, Fault
from tests.mutations.fused_faults import FUSED_VICTIM
from tests.mutations.good import VICTIM, VICTIM_SPREAD, random_source
from tests.mutations.llama import llama_source

CONFIG = ExportConfig(profile="portable")
FUSED_CONFIG = ExportConfig(profile="ort")
UNCHECKED = WeightsResult(checked=0, size_bytes=0, mismatches=())


@functools.cache
def good_source(*, tied: bool) -> Source:
    return random_source(TIED if tied else VICTIM, VICTIM_SPREAD, seed=7, name="victim")


@functools.cache
def fused_source() -> Source:
    return random_source(FUSED_VICTIM, VICTIM_SPREAD, seed=7, name="victim")


@functools.cache
def found_source() -> Source:
    return llama_source()


def plant(fault: Fault, good: Artifact, folder: Path, source: Source | None = None) -> Artifact:
    """An artifact with the fault and with the hashes of its own files, as an exporter that errs would write it."""
    if fault.scripted is not None:
        source = dataclasses.replace(source or good_source(tied=fault.tied), skeleton=blank(fault.scripted))
        return stages.export(source, dataclasses.replace(CONFIG, gate="off"), folder)
    assert fault.edit is not None
    shutil.copytree(good.folder, folder)
    path = folder / VARIANT_PATHS["fp32"]
    model = onnx.load(path)
    fault.edit(model)
    onnx.save(model, path)
    own = {VARIANT_PATHS["fp32"]: {"sha256": sha256_of(path), "size_bytes": path.stat().st_size}}
    manifest = dataclasses.replace(good.manifest, files=good.manifest.files | own)
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    return Artifact(folder, manifest)


def judge(artifact: Artifact, source: Source, *, bits: bool = True) -> ParityReport:
    """What the gate says of an artifact; without `bits` it does not look at the weights, only at what they do."""
    if bits:
        return validate_against(artifact, source, CONFIG.gate_settings)
    with mock.patch("gpt_export.pipeline.comparison.check_weights", return_value=UNCHECKED):
        return validate_against(artifact, source, CONFIG.gate_settings)


def judge_bits(artifact: Artifact, source: Source) -> WeightsResult:
    """What the comparison of the weights alone says."""
    layouts = artifact.manifest.variants[BASE]["weights"]
    path = artifact.variant_path(BASE)
    return check_weights(
        read_model(path), source.weights, {name: Layout.from_dict(layout) for name, layout in layouts.items()}
    )
