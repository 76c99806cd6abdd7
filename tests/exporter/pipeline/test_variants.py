"""Four precisions of a trained model: each passes its own gate, and none with a fault in its weights or graph."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import onnx
import pytest
from gpt_export.artifact.hashing import sha256_of
from gpt_export.artifact.manifest import MANIFEST_NAME
from gpt_export.artifact.reading import Artifact
from gpt_export.errors import OutputError, ParityError
from gpt_export.gate.cases import choose_cases
from gpt_export.gate.codes_check import CodesResult
from gpt_export.gate.limits import LIMITS
from gpt_export.gate.report import ParityReport
from gpt_export.gate.settings import GateSettings
from gpt_export.pipeline import stages
from gpt_export.pipeline.comparison import validate_artifact
from gpt_export.pipeline.config import ExportConfig
from gpt_export.pipeline.variants import VARIANT_PATHS
from gpt_export.runtime.session import Session
from gpt_export.sources.source import Source
from gpt_export.testing import assert_parity
from gpt_export.weights.quantize.schemes import PRECISIONS
from onnx import numpy_helper

from tests.conftest import Run
from tests.mutations.edits import attribute, producer, set_values, values_of
from tests.trained_gpt import CONFIG, HELD_OUT, TEXTS

Edit = Callable[[onnx.ModelProto], None]
SETTINGS = GateSettings(texts=TEXTS, corpus=HELD_OUT)
UP = "trf_blocks.1.ff.layers.0.weight"
PACKED = "trf_blocks.0.att.W_query.weight+2"
TABLE = "tok_emb.weight"


def named(model: onnx.ModelProto, start: str, part: str = "codes") -> str:
    """The initializer of a matrix's codes or scales."""
    (name,) = {tensor.name for tensor in model.graph.initializer if tensor.name == f"{start}.{part}"}
    return name


def changed(start: str, part: str, change: Callable[[np.ndarray], np.ndarray]) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        name = named(model, start, part)
        before = values_of(model, name)
        set_values(model, name, change(before).astype(before.dtype))

    return edit


def plant(edit: Edit, precision: str, good: Path, folder: Path) -> Artifact:
    """A copy of `good` that has `precision` alone, with the fault and the hashes of its own files."""
    shutil.copytree(good, folder)
    artifact = Artifact.open(folder)
    path = folder / VARIANT_PATHS[precision]  # type: ignore[index]
    model = onnx.load(path)
    edit(model)
    onnx.save(model, path)
    own = {VARIANT_PATHS[precision]: {"sha256": sha256_of(path), "size_bytes": path.stat().st_size}}  # type: ignore[index]
    manifest = dataclasses.replace(
        artifact.manifest,
        variants={precision: artifact.manifest.variants[precision]},
        files=artifact.manifest.files | own,
    )
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    return Artifact(folder, manifest)


def judge(artifact: Artifact, source: Source, *, codes: bool = True) -> ParityReport:
    """What the gate says; without `codes` it does not look at quantised weights, only at what they do."""
    if codes:
        return validate_artifact(artifact, source, SETTINGS)
    unchecked = CodesResult(matrices=0, elements=0, worst_sqnr_db=None, worst_matrix="", faults=())
    with mock.patch("gpt_export.pipeline.comparison.check_codes", return_value=unchecked):
        return validate_artifact(artifact, source, SETTINGS)


def test_every_precision_of_a_trained_model_passes_its_gate(trained_variants: Path) -> None:
    artifact = Artifact.open(trained_variants)
    parity = artifact.manifest.parity
    assert parity is not None
    assert parity["passed"]
    assert set(parity["targets"]) == {"onnx", "fp16", "int8", "int4"}
    assert set(parity["quantized"]) == {"int8", "int4"}
    for name in ("fp16", "int8", "int4"):
        found = parity["targets"][name]
        assert 0 < found["kl_mean"] < LIMITS[name].kl_mean
        assert not found["bounded"]
    order = [parity["targets"][name]["kl_mean"] for name in ("onnx", "fp16", "int8", "int4")]
    assert order == sorted(order)


def nothing(model: onnx.ModelProto) -> None:
    """The file is loaded and saved again."""


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_copy_without_a_fault_passes(
    precision: str, trained_variants: Path, trained_source: Source, tmp_path: Path
) -> None:
    """The control of everything below."""
    artifact = plant(nothing, precision, trained_variants, tmp_path / "copy")
    assert judge(artifact, trained_source).failures == ()


def swapped_nibbles(codes: np.ndarray) -> np.ndarray:
    return (codes << 4) | (codes >> 4)


def swapped_heads(codes: np.ndarray) -> np.ndarray:
    """Of int8's (K, N) codes or int4's (N, blocks, bytes), the rows of the first two heads of the queries."""
    out = codes.copy()
    width = CONFIG.head_dim
    first, second = slice(0, width), slice(width, 2 * width)
    if codes.ndim == 2:
        out[:, first], out[:, second] = codes[:, second], codes[:, first]
    else:
        out[first], out[second] = codes[second], codes[first]
    return out


def one_more(codes: np.ndarray) -> np.ndarray:
    """Every code of 4 bits one higher, where there is one."""
    low, high = np.minimum((codes & 15) + 1, 15), np.minimum((codes >> 4) + 1, 15)
    return low | (high << 4)


def permuted(codes: np.ndarray) -> np.ndarray:
    return codes[np.random.default_rng(1).permutation(len(codes))]


# Codes that are one higher add the same to every weight of a row. What a layer reads behind a norm adds up to nearly
# nothing, so that the outputs do not show it; the weights do.
WEIGHT_FAULTS = {
    "int4 scales doubled": ("int4", changed(UP, "scales", lambda s: s * 2), UP, True),
    "int4 nibbles swapped": ("int4", changed(UP, "codes", swapped_nibbles), UP, True),
    "int4 codes one higher": ("int4", changed(UP, "codes", one_more), UP, False),
    "int4 heads swapped": ("int4", changed(PACKED, "codes", swapped_heads), "att.W_query", True),
    "int4 embedding permuted": ("int4", changed(TABLE, "codes", permuted), TABLE, True),
    "int8 scales doubled": ("int8", changed(UP, "scales", lambda s: s * 2), UP, True),
    "int8 codes one higher": ("int8", changed(UP, "codes", lambda c: np.minimum(c, 126) + 1), UP, False),
    "int8 heads swapped": ("int8", changed(PACKED, "codes", swapped_heads), "att.W_query", True),
    "int8 embedding permuted": ("int8", changed(TABLE, "codes", permuted), TABLE, True),
}


@pytest.mark.parametrize("name", WEIGHT_FAULTS)
def test_wrong_codes_are_found_in_the_weights_and_in_what_they_do(
    name: str, trained_variants: Path, trained_source: Source, tmp_path: Path
) -> None:
    precision, edit, weight, shows = WEIGHT_FAULTS[name]
    artifact = plant(edit, precision, trained_variants, tmp_path / "faulty")
    report = judge(artifact, trained_source)
    assert any(fault.startswith(f"{precision}, weight") and weight in fault for fault in report.faults), report.failures
    blind = judge(artifact, trained_source, codes=False)
    assert blind.passed is not shows, blind.failures


def infinite(model: onnx.ModelProto) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == UP)
    values = numpy_helper.to_array(tensor).copy()
    values[3, 5] = np.inf
    set_values(model, UP, values)


def test_an_infinite_weight_of_fp16_is_found_by_its_bits_and_by_what_it_does(
    trained_variants: Path, trained_source: Source, tmp_path: Path
) -> None:
    report = judge(plant(infinite, "fp16", trained_variants, tmp_path / "faulty"), trained_source)
    assert any("fp16, weight" in failure and "inf in the file" in failure for failure in report.failures)
    assert any("NaN or Inf" in failure for failure in report.failures)


def all_of(operator: str, name: str, value: object) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        nodes = [node for node in model.graph.node if node.op_type == operator]
        assert nodes
        for node in nodes:
            attribute(node, name, value)

    return edit


def constant_of(tensor: str, value: np.ndarray) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        node = producer(model, tensor)
        del node.attribute[:]
        node.attribute.append(onnx.helper.make_attribute("value", numpy_helper.from_array(value)))

    return edit


GRAPH_FAULTS = {
    "int4 blocks of another size": ("int4", all_of("MatMulNBits", "block_size", 32), "does not"),
    "int4 as 8 bits": ("int4", all_of("MatMulNBits", "bits", 8), "does not"),
    "int4 scores unscaled": ("int4", all_of("GroupQueryAttention", "scale", 1.0), ""),
    "int8 tokens cut": ("int8", constant_of("/tokens/step_output_0", np.array(1 / 250, np.float32)), ""),
    "int8 tokens in 60 steps": ("int8", constant_of("/tokens/step_output_0", np.array(1 / 30, np.float32)), ""),
    "int8 one scale of all products": ("int8", constant_of("/tokens/one_output_0", np.array(1.2, np.float32)), ""),
    "fp16 sink": ("fp16", constant_of("/mask/no_sink_output_0", np.zeros(CONFIG.n_heads, np.float32)), ""),
}


@pytest.mark.parametrize("name", GRAPH_FAULTS)
def test_a_wrong_graph_around_right_codes_is_found(
    name: str, trained_variants: Path, trained_source: Source, tmp_path: Path
) -> None:
    precision, edit, words = GRAPH_FAULTS[name]
    report = judge(plant(edit, precision, trained_variants, tmp_path / "faulty"), trained_source)
    assert not report.passed
    assert report.faults == ()
    assert all(failure.startswith(f"{precision}, case") for failure in report.failures)
    assert words in report.failures[0]


def test_validate_judges_each_variant_by_its_own_limits(
    cli: Callable[..., Run], trained_variants: Path, trained_checkpoint: Path, tmp_path: Path
) -> None:
    config = ("--config", trained_checkpoint.with_name("book.json"))
    run = cli("validate", trained_variants, "--against", trained_checkpoint, *config, "--json")
    assert run.code == 0, run.err
    assert set(run.json()["targets"]) == {"onnx", "fp16", "int8", "int4"}
    edit = WEIGHT_FAULTS["int8 embedding permuted"][1]
    faulty = plant(edit, "int8", trained_variants, tmp_path / "faulty")
    run = cli("validate", faulty.folder, "--against", trained_checkpoint, *config, "--json")
    assert run.code == 3
    run = cli("validate", trained_variants, "--against", trained_checkpoint, *config, "--kl", "1e-9", "--json")
    assert run.code == 3
    assert "where 1e-09 is allowed" in run.err


def test_assert_parity_takes_an_artifact_with_variants(trained_variants: Path, trained_checkpoint: Path) -> None:
    report = assert_parity(
        trained_variants, trained_checkpoint, config_file=trained_checkpoint.with_name("book.json"), cases="grid"
    )
    assert set(report.targets) == {"onnx", "fp16", "int8", "int4"}


def test_assert_parity_takes_the_module_that_was_trained(trained_variants: Path, trained_source: Source) -> None:
    report = assert_parity(trained_variants, trained_source.reference(), cases=("grid-2x17", "pad-left"))
    assert set(report.targets) == {"onnx", "fp16", "int8", "int4"}


def test_the_manifest_says_what_each_variant_is(trained_variants: Path) -> None:
    variants = Artifact.open(trained_variants).manifest.variants
    assert set(variants) == set(PRECISIONS)
    for name, variant in variants.items():
        assert (variant["precision"], variant["profile"], variant["path"]) == (name, "ort", VARIANT_PATHS[name])  # type: ignore[index]
        assert (variant["shared_cache"], variant["batched_chunks"]) == (True, False)
        assert variant["minimum_onnxruntime"] == "1.23"
        assert variant["cache_dtype"] == ("float16" if name == "fp16" else "float32")
        counts = variant["operators"]
        assert counts["GroupQueryAttention"] == CONFIG.n_layers
        model = onnx.load(trained_variants / variant["path"], load_external_data=False)
        for operator, count in counts.items():
            assert sum(node.op_type == operator for node in model.graph.node) == count, operator
    assert {"MatMulNBits", "GatherBlockQuantized"} <= variants["int4"]["operators"].keys()
    assert variants["int8"]["operators"]["MatMulIntegerToFloat"] == 4 * CONFIG.n_layers


def test_every_variant_generates_the_language(cli: Callable[..., Run], trained_variants: Path) -> None:
    said = {}
    for name in PRECISIONS:
        run = cli("generate", trained_variants, TEXTS[0][:12], "--variant", name, "--max-new-tokens", 12, "--json")
        assert run.code == 0, run.err
        (found,) = run.json()["continuations"]
        said[name] = found["ids"]
    assert said["fp32"] == said["fp16"]
    session = Session.open(trained_variants, variant="int4")
    ids = np.array([list(TEXTS[0][:12].encode())])
    assert said["int4"] == [int(chosen[0]) for chosen in session.generate(ids, max_new_tokens=12)]


def test_a_variant_that_failed_is_published_on_request_and_says_so(trained_source: Source, tmp_path: Path) -> None:
    config = ExportConfig(precisions=("int8",), variant_kl=1e-9, cases="grid", gate="report")
    manifest = stages.export(trained_source, config, tmp_path / "artifact").manifest
    assert set(manifest.variants) == {"int8"}
    assert manifest.parity is not None
    assert not manifest.parity["passed"]
    assert all(failure.startswith("int8, case grid") for failure in manifest.parity["failures"])
    with pytest.raises(ParityError, match="nothing was published"):
        stages.export(trained_source, dataclasses.replace(config, gate="enforce"), tmp_path / "enforced")
    assert not (tmp_path / "enforced").exists()


@pytest.mark.parametrize(
    ("given", "kl", "top1"),
    [
        ({}, 0.002, 0.98),
        ({"variant_kl": 1e-4}, 1e-4, 0.98),
        ({"variant_kl": 0.5}, 0.002, 0.98),
        ({"variant_top1": 1.0}, 0.002, 1.0),
    ],
    ids=["its row", "tighter", "not looser", "all the same"],
)
def test_what_is_given_tightens_a_variants_limits_and_is_recorded(
    given: dict[str, float], kl: float, top1: float
) -> None:
    config = ExportConfig(precisions=("fp32", "int8"), **given)
    limits = config.gate_settings.allowed_for("int8")
    assert (limits.kl_mean, limits.top1) == (kl, top1)
    assert config.to_dict()["variant_limits"] == {"int8": limits.to_dict()}


def test_the_disk_is_asked_for_room_for_every_variant(
    trained_source: Source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: dict[tuple[str, ...], int] = {}
    for precisions in (("fp32",), ("fp16",), ("int8",), ("int4",), PRECISIONS):
        asked[precisions] = stages._needed_bytes(trained_source, ExportConfig(precisions=precisions), ())
    numbers = sum(trained_source.weights[name].numel() for name in set(trained_source.first_names().values()))
    assert [asked[(name,)] for name in PRECISIONS] == [4 * numbers, 2 * numbers, numbers, numbers // 2]
    assert asked[PRECISIONS] == sum(asked[(name,)] for name in PRECISIONS)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=asked[PRECISIONS] - 1))
    with pytest.raises(OutputError, match="free space or choose another"):
        stages.export(trained_source, ExportConfig(precisions=PRECISIONS), tmp_path / "out")


def test_logits_take_room_on_the_disk_only_where_they_are_compared(trained_source: Source) -> None:
    config = ExportConfig()
    cases = choose_cases(trained_source, config.gate_settings)
    positions = sum(case.positions for case in cases)
    compared, alone = (
        stages._needed_bytes(trained_source, ExportConfig(gate=gate), cases) for gate in ("enforce", "off")
    )
    assert compared - alone == 4 * trained_source.vocab_size * positions > 0
