"""Variants whose cache has 8 bits: they pass their gate, and none with a fault in what their codes are scaled by."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import gpt_export
import numpy as np
import onnx
import pytest
from gpt_export.artifact.hashing import sha256_of
from gpt_export.artifact.manifest import MANIFEST_NAME
from gpt_export.artifact.reading import Artifact
from gpt_export.artifact.variant_names import ORDER
from gpt_export.errors import ConfigError, GraphError
from gpt_export.gate.limits import LIMITS
from gpt_export.gate.settings import GateSettings
from gpt_export.pipeline import stages
from gpt_export.pipeline.cache_scaling import LEAST_TOKENS, scaling_texts, unlike
from gpt_export.pipeline.comparison import validate_artifact
from gpt_export.pipeline.config import ExportConfig
from gpt_export.pipeline.variants import VARIANT_PATHS
from gpt_export.sources.source import Source
from onnx import numpy_helper

from tests.conftest import Run
from tests.mutations import llama
from tests.mutations.edits import attribute, producer
from tests.trained_gpt import CONFIG, HELD_OUT, TEXTS

SETTINGS = GateSettings(texts=TEXTS, cases=("grid", "unicode", "pad-left-chunks"))
NAMES = ("fp32-kv8", "int8-kv8", "int4-kv8")
Scales = dict[str, np.ndarray]
Edit = Callable[[Scales], Scales]


def scales_of(model: onnx.ModelProto) -> Scales:
    """Of each present, what its codes are scaled by."""
    pairs = [(node.output[1 + i], node.input[12 + i]) for node in attentions(model) for i in range(2)]
    return {
        present: numpy_helper.to_array(next(iter(producer(model, scale).attribute)).t).copy()
        for present, scale in pairs
    }


def attentions(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "GroupQueryAttention"]


def rescaled(edit: Edit) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        changed = edit(scales_of(model))
        for node in attentions(model):
            for i in range(2):
                constant = producer(model, node.input[12 + i])
                array = np.ascontiguousarray(changed[node.output[1 + i]], np.float32)
                constant.attribute[0].t.CopyFrom(numpy_helper.from_array(array))

    return change


def plant(change: Callable[[onnx.ModelProto], None], variant: str, good: Path, folder: Path) -> Artifact:
    """A copy of `good` that has `variant` alone, with the fault and the hashes of its own files."""
    shutil.copytree(good, folder)
    artifact = Artifact.open(folder)
    path = folder / VARIANT_PATHS[variant]
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    own = {VARIANT_PATHS[variant]: {"sha256": sha256_of(path), "size_bytes": path.stat().st_size}}
    manifest = dataclasses.replace(
        artifact.manifest,
        variants={variant: artifact.manifest.variants[variant]},
        files=artifact.manifest.files | own,
    )
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    return Artifact(folder, manifest)


def test_every_precision_with_a_small_cache_passes_its_gate(trained_kv8: Path) -> None:
    parity = Artifact.open(trained_kv8).manifest.parity
    assert parity is not None
    assert parity["passed"]
    assert set(parity["targets"]) == set(NAMES)
    for name in NAMES:
        assert 0 < parity["targets"][name]["kl_mean"] < LIMITS[name].kl_mean


def test_the_long_row_and_padding_are_among_what_it_is_judged_by(trained_kv8: Path) -> None:
    report = json.loads((trained_kv8 / "parity.json").read_text(encoding="utf-8"))
    cases = {case["name"] for case in report["cases"]["int4-kv8"]}
    assert {"cache-steps", "cache-chunks", "pad-left", "pad-left-chunks", "greedy"} <= cases
    assert f"grid-1x{CONFIG.context_length}" in cases


def test_the_manifest_says_what_the_cache_is(trained_kv8: Path) -> None:
    manifest = Artifact.open(trained_kv8).manifest
    assert list(manifest.variants) == list(NAMES)
    assert manifest.export["kv_caches"] == ["int8"]
    for name, variant in manifest.variants.items():
        assert variant["cache_dtype"] == "int8"
        assert variant["minimum_onnxruntime"] == "1.28"
        assert variant["precision"] == name.removesuffix("-kv8")
        assert variant["path"] == VARIANT_PATHS[name]
        kept = [each for each in variant["inputs"] if each["name"].startswith("past_key_values.")]
        assert {each["dtype"] for each in kept} == {"int8"}


def test_inspect_shows_the_type_of_the_cache(trained_kv8: Path, cli: Callable[..., Run]) -> None:
    graphs = cli("inspect", trained_kv8, "--json").json()["graphs"]
    kept = {value["dtype"] for value in graphs["int4-kv8"]["inputs"] if value["name"].startswith("past")}
    assert kept == {"int8"}
    assert "int8" in cli("inspect", trained_kv8).out


def heads_swapped(kind: str) -> Edit:
    """The scales of the first two heads of `kind` change places."""

    def edit(scales: Scales) -> Scales:
        return {
            name: scale[:, [1, 0, *range(2, scale.shape[1])]] if name.endswith(kind) else scale
            for name, scale in scales.items()
        }

    return edit


def values_by_keys(scales: Scales) -> Scales:
    return scales | {name: scales[name.replace("value", "key")] for name in scales if name.endswith("value")}


def keys_by_values(scales: Scales) -> Scales:
    return scales | {name: scales[name.replace("key", "value")] for name in scales if name.endswith("key")}


def times(factor: float) -> Edit:
    return lambda scales: {name: scale * factor for name, scale in scales.items()}


def layers_swapped(scales: Scales) -> Scales:
    other = {"0": "1", "1": "0"}
    return {name: scales[f"present.{other[name.split('.')[1]]}.{name.split('.')[2]}"] for name in scales}


SCALE_FAULTS = {
    "the keys' scales of another head": heads_swapped("key"),
    "values scaled by what keys are": values_by_keys,
    "keys scaled by what values are": keys_by_values,
    "scales of another layer": layers_swapped,
    "scales of half the size": times(0.5),
    "scales of four times the size": times(4.0),
}


@pytest.mark.parametrize("name", SCALE_FAULTS)
def test_codes_that_are_scaled_for_other_numbers_are_found(
    name: str, trained_kv8: Path, trained_source: Source, tmp_path: Path
) -> None:
    artifact = plant(rescaled(SCALE_FAULTS[name]), "fp32-kv8", trained_kv8, tmp_path / "faulty")
    report = validate_artifact(artifact, trained_source, SETTINGS)
    assert not report.passed
    assert any(fault.startswith("fp32-kv8, the cached") for fault in report.faults), report.failures


def all_of(name: str, value: object) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        for node in attentions(model):
            attribute(node, name, value)

    return change


def scales_of_one_number(model: onnx.ModelProto) -> None:
    """The whole array is taken for the scale of all, of which the operator reads the first number."""
    all_of("k_quant_type", "PER_TENSOR")(model)
    all_of("v_quant_type", "PER_TENSOR")(model)


GRAPH_FAULTS = {
    "a scale for all channels": scales_of_one_number,
    "keys by tensor and values by channel": all_of("k_quant_type", "PER_TENSOR"),
    "codes of 4 bits": all_of("kv_cache_bit_width", 4),
    "scores unscaled": all_of("scale", 1.0),
}


@pytest.mark.parametrize("name", GRAPH_FAULTS)
def test_a_wrong_operator_around_right_scales_is_found(
    name: str, trained_kv8: Path, trained_source: Source, tmp_path: Path
) -> None:
    artifact = plant(GRAPH_FAULTS[name], "fp32-kv8", trained_kv8, tmp_path / "faulty")
    assert not validate_artifact(artifact, trained_source, SETTINGS).passed


@pytest.mark.parametrize("variant", ["fp32-kv8", "int4-kv8"])
def test_a_copy_without_a_fault_passes(variant: str, trained_kv8: Path, trained_source: Source, tmp_path: Path) -> None:
    """The control of both."""
    artifact = plant(rescaled(dict), variant, trained_kv8, tmp_path / "copy")
    assert validate_artifact(artifact, trained_source, SETTINGS).failures == ()


def test_a_derived_decoder_has_one_too(tmp_path: Path) -> None:
    """Rotation, grouped heads, QK norm, a soft cap and a window, its cache found and not written."""
    made = gpt_export.export(llama.llama(), tmp_path / "llama", context_length=llama.CONTEXT, kv_cache="int8")
    variants = made.manifest.variants
    assert list(variants) == ["fp32-kv8"]
    assert variants["fp32-kv8"]["operators"]["GroupQueryAttention"] == llama.LAYERS
    assert made.manifest.parity is not None
    assert made.manifest.parity["targets"]["fp32-kv8"]["kl_mean"] > 0


REFUSED = [
    ({"kv_caches": ("int4",)}, "kv-cache 'int4' is not known; choose one of fp32, int8"),
    ({"kv_caches": ("int8", "int8")}, "name each one once"),
    ({"kv_caches": ()}, "name each one once"),
    ({"kv_caches": "int8", "profile": "portable"}, "leave --profile portable out"),
    ({"kv_caches": "int8", "cache": False}, "leave --no-cache out"),
    ({"kv_caches": "int8", "precisions": "fp16"}, "for CPUs and fp16 for GPUs"),
]


@pytest.mark.parametrize(("given", "words"), REFUSED)
def test_what_does_not_go_with_it_is_refused_in_a_sentence(given: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ExportConfig(**given)  # type: ignore[arg-type]


def test_a_model_without_a_cache_is_refused_and_leaves_nothing(tiny_source: Source, tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="there is no cache that could have 8 bits"):
        gpt_export.export(tiny_source.reference(), tmp_path / "out", kv_cache="int8", context_length=8)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def tiny_source() -> Source:
    from gpt_export.sources.source import source_of_module

    from tests import samples

    return source_of_module(samples.tiny_dummy(), name="tiny", record={"kind": "module"}, context_length=8)


def test_every_variant_stands_in_the_order_in_which_it_is_told() -> None:
    config = ExportConfig(precisions=("fp32", "fp16", "int8", "int4"), kv_caches=("fp32", "int8"))
    names = [precision + ("-kv8" if cache == "int8" else "") for precision, cache in config.variants]
    assert tuple(names) == ORDER
    assert set(ORDER) == set(VARIANT_PATHS) == set(LIMITS)
    assert set(config.to_dict()["variant_limits"]) == set(ORDER) - {"fp32"}


def test_a_text_is_read_once_however_many_cases_begin_with_it() -> None:
    row = np.arange(9)[None]
    found = unlike([row[:, :4], row, row, row[:, 3:6], row[:, 4:8], row[:, :0]])
    assert sorted(text.ravel().tolist() for text in found) == [list(range(9)), [3, 4, 5], [4, 5, 6, 7]]


def test_scales_are_found_on_enough_tokens_and_on_more_with_a_text(trained_source: Source) -> None:
    found = scaling_texts(trained_source, None)
    assert sum(text.size for text in found) >= LEAST_TOKENS
    more = scaling_texts(trained_source, HELD_OUT)
    assert len(more) > len(found)
    assert all(text.shape == (1, CONFIG.context_length) for text in more[len(found) :])


def test_what_the_gate_is_asked_to_look_at_changes_no_scale(trained_source: Source, tmp_path: Path) -> None:
    written = []
    for cases in ("grid-1x1", "default"):
        config = ExportConfig(kv_caches=("int8",), gate="off", cases=(cases,))
        artifact = stages.export(trained_source, config, tmp_path / cases)
        written.append({path: digest for path, digest in artifact.manifest.files.items() if path.startswith("onnx/")})
    assert written[0] == written[1]
