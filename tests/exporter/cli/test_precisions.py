"""Profiles and precisions on the command line: what is refused, with which sentence, and what the default does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gpt_export.artifact.reading import Artifact
from gpt_export_models.config import GPTConfig
from gpt_export_models.gpt import GPTModel

from tests import samples
from tests.byte_gpt import CONFIG, save_byte_gpt
from tests.conftest import Run, tree

Cli = Callable[..., Run]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    path, config = save_byte_gpt(tmp_path_factory.mktemp("options") / "checkpoint")
    return "onnx", path, "--config", config


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--precision", "int8", "--profile", "portable"), "precision int8 needs onnxruntime's own operators"),
        (("--precision", "int7"), "precision 'int7' is not known; choose one of fp32, fp16, int8, int4"),
        (("--precision", "fp32,int8,int8"), "name each one once"),
        (("--precision", ""), "precision"),
    ],
)
def test_what_does_not_go_together_is_refused_in_a_sentence(
    given: tuple[str, ...], words: str, options: tuple[object, ...], cli: Cli, tmp_path: Path
) -> None:
    cli(*options, *given, "--output", tmp_path / "out").refused(2, words)
    assert list(tmp_path.iterdir()) == []


def test_a_calibration_without_int4_is_refused(options: tuple[object, ...], cli: Cli, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("ab" * 1000, encoding="utf-8")
    run = cli(*options, "--precision", "int8", "--calibration", text, "--output", tmp_path / "out")
    run.refused(2, "a calibration text is for int4")


def test_a_calibration_that_is_no_text_is_refused(options: tuple[object, ...], cli: Cli, tmp_path: Path) -> None:
    text = tmp_path / "text.bin"
    text.write_bytes(b"\xff\xfe\x00" * 1000)
    run = cli(*options, "--precision", "int4", "--calibration", text, "--output", tmp_path / "out")
    run.refused(2, "UTF-8")


def test_a_graph_without_a_cache_takes_every_precision(options: tuple[object, ...], cli: Cli, tmp_path: Path) -> None:
    run = cli(*options, "--precision", "fp32,fp16,int8,int4", "--no-cache", "--output", tmp_path / "out")
    assert run.code == 0, run.err
    variants = Artifact.open(tmp_path / "out").manifest.variants
    assert set(variants) == {"fp32", "fp16", "int8", "int4"}
    assert {variant["profile"] for variant in variants.values()} == {"ort"}


def test_attention_stays_plain_where_8_does_not_divide_the_width_of_heads(cli: Cli, tmp_path: Path) -> None:
    changed = CONFIG | {"emb_dim": 36, "n_heads": 3}
    torch.save(samples.seeded(GPTModel(GPTConfig.from_dict(changed))).state_dict(), tmp_path / "model.pth")
    config = tmp_path / "book.json"
    config.write_text(json.dumps(changed), encoding="utf-8")
    run = cli(
        *("onnx", tmp_path / "model.pth", "--config", config),
        *("--precision", "fp32,int8,int4", "--output", tmp_path / "out"),
    )
    assert run.code == 0, run.err
    variants = Artifact.open(tmp_path / "out").manifest.variants
    for variant in variants.values():
        assert (variant["shared_cache"], variant["batched_chunks"]) == (False, True)
        assert "GroupQueryAttention" not in variant["operators"]
    assert variants["fp32"]["minimum_onnxruntime"] < "1.23"


def test_a_graph_without_a_cache_has_none_to_describe(byte_uncached: Path) -> None:
    variant = Artifact.open(byte_uncached).manifest.variants["fp32"]
    assert (variant["profile"], variant["cache_dtype"]) == ("portable", None)
    assert (variant["shared_cache"], variant["batched_chunks"]) == (False, False)


def test_all_precisions_have_the_same_bytes_in_every_process(
    options: tuple[object, ...], run_command: Cli, tmp_path: Path
) -> None:
    found = []
    for name, seed, threads in (("a", "1", "1"), ("b", "2", "2")):
        run = run_command(
            *options, "--precision", "fp32,fp16,int8,int4", "--gate", "off", "--output", tmp_path / name / "out",
            env={"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": threads},
        )  # fmt: skip
        assert run.code == 0, run.err
        found.append(tree(tmp_path / name / "out"))
    assert found[0].keys() == found[1].keys()
    assert {name for name in found[0] if found[0][name] != found[1][name]} == set()
    assert len([name for name in found[0] if name.endswith(".onnx")]) == 4
