"""`gpt-export quantize`: small files of a published artifact, without its checkpoint, the same as with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Run, tree
from tests.trained_gpt import CALIBRATION, HELD_OUT

Cli = Callable[..., Run]


@pytest.fixture
def texts(tmp_path: Path) -> tuple[object, ...]:
    (tmp_path / "train.txt").write_text(CALIBRATION, encoding="utf-8")
    (tmp_path / "held-out.txt").write_text(HELD_OUT, encoding="utf-8")
    return "--calibration", tmp_path / "train.txt", "--text-file", tmp_path / "held-out.txt"


def test_the_files_are_those_of_an_export_from_the_checkpoint(
    cli: Cli, trained_variants: Path, tmp_path: Path, texts: tuple[object, ...]
) -> None:
    before = tree(trained_variants)
    run = cli(
        *("quantize", trained_variants, "--precision", "fp32,int8,int4"), *texts[2:], "--output", tmp_path / "small"
    )
    assert run.code == 0, run.err
    for name in ("model.onnx", "model_quantized.onnx", "model_q4.onnx"):
        made = (tmp_path / "small" / "onnx" / name).read_bytes()
        assert made == before[f"onnx/{name}"], name  # the oracle: the export that had the checkpoint
    assert tree(trained_variants) == before


def test_a_calibrated_int4_is_gated_against_its_own_fp32(
    cli: Cli, trained_variants: Path, trained_checkpoint: Path, tmp_path: Path, texts: tuple[object, ...]
) -> None:
    run = cli("quantize", trained_variants, "--precision", "int4", *texts, "--output", tmp_path / "int4", "--json")
    assert run.code == 0, run.err
    manifest = run.json()["manifest"]
    assert list(manifest["variants"]) == ["int4"]
    assert manifest["parity"]["passed"] is True
    assert manifest["model"]["judged_against"].startswith("the fp32 graph of ")
    of = json.loads((trained_variants / "manifest.json").read_text("utf-8"))
    assert manifest["source"]["quantized_from"] == of["model_digest"]
    for source in ((trained_variants,), (trained_checkpoint, "--config", trained_checkpoint.with_name("book.json"))):
        again = cli("validate", tmp_path / "int4", "--against", *source)
        assert again.code == 0, again.err


def test_too_coarse_a_file_is_not_published(cli: Cli, byte_original: Path, tmp_path: Path) -> None:
    # Random weights lose more at four bits than the gate lets through.
    run = cli("quantize", byte_original, "--precision", "int4", "--kl", "1e-6", "--output", tmp_path / "int4")
    run.refused(3, "mean KL divergence", "nothing was published")
    assert not (tmp_path / "int4").exists()


def test_an_artifact_without_fp32_is_refused(cli: Cli, export_saved: Callable[..., Path], tmp_path: Path) -> None:
    few = export_saved("int8-int4", precisions=("int8", "int4"), gate="off")
    run = cli("quantize", few, "--precision", "int4", "--output", tmp_path / "x")
    run.refused(1, "has no variant 'fp32'")
    assert "loading PyTorch" not in run.err
    cli("quantize", tmp_path / "none", "--precision", "int4").refused(1, "does not exist")
    cli("quantize", few, "--precision", "int5").refused(1, "has no variant 'fp32'")
