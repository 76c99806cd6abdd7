"""What is compared: the text, the grid, and what stands in for its large corners."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gpt_export.artifact.reading import Artifact
from gpt_export.errors import ConfigError, TextError
from gpt_export.gate.cases import grid_cases
from gpt_export_models import DummyGPTModel

from tests import samples
from tests.conftest import Run

Export = Callable[..., Artifact]


def cases_of(folder: Path, target: str = "onnx") -> list[dict[str, Any]]:
    return json.loads((folder / "parity.json").read_text())["cases"][target]


def shapes(folder: Path, target: str = "onnx") -> list[tuple[int, int]]:
    """The shapes of the grid, in order."""
    cases = cases_of(folder, target)
    return [(case["batch"], case["sequence"]) for case in cases if case["name"].startswith("grid-")]


def test_the_default_gate_of_124m_is_the_text_and_the_grid(artifact_124m: Path) -> None:
    text = next(case for case in cases_of(artifact_124m) if case["name"] == "text")
    assert (text["batch"], text["sequence"], text["positions"]) == (2, 4, 8)
    found = shapes(artifact_124m)
    assert found[:9] == [(batch, sequence) for sequence in (1, 2, 17) for batch in (1, 2, 5)]
    assert found[9:] == [(1, 1024), (2, 64)]


def test_the_default_gate_stays_near_its_context_and_the_full_set_has_the_batches() -> None:
    default = grid_cases(1024, 50257, spent=250)
    assert sum(case.positions for case in default) <= 1024 + 300
    full = {case.ids.shape for case in grid_cases(1024, 50257, full=True, spent=250)}
    assert {(2, 1024), (5, 1024)} <= full - {case.ids.shape for case in default}


def test_the_torchscript_file_is_held_to_the_same_cases(artifact_124m: Path) -> None:
    assert shapes(artifact_124m, "torchscript") == shapes(artifact_124m, "onnx")


def test_the_full_set_runs_every_shape_whole(export_tiny: Export) -> None:
    module = samples.seeded(DummyGPTModel(samples.TINY_CONFIG | {"context_length": 700}))
    short = export_tiny(module, context_length=700)
    full = export_tiny(module, context_length=700, cases=("full",), force=True)
    assert shapes(full.folder) == [(batch, sequence) for sequence in (1, 2, 17, 700) for batch in (1, 2, 5)]
    assert not any("stands for" in case["note"] for case in cases_of(full.folder))
    assert sum(int(case["positions"]) for case in short.manifest.parity["targets"].values()) <= 2 * 2100
    assert list(full.manifest.export["cases"]) == ["full"]


def test_a_context_below_the_grid_is_not_left(export_tiny: Export) -> None:
    module = samples.seeded(DummyGPTModel(samples.TINY_CONFIG | {"context_length": 5}))
    artifact = export_tiny(module, context_length=5)
    assert set(shapes(artifact.folder)) == {(batch, sequence) for sequence in (1, 2, 5) for batch in (1, 2, 5)}


def test_the_context_itself_is_always_run_by_one_row_where_it_fits(export_tiny: Export) -> None:
    artifact = export_tiny(samples.tiny_dummy())
    assert (1, samples.CONTEXT) in shapes(artifact.folder)
    assert (5, samples.CONTEXT) in shapes(artifact.folder)


def test_padding_of_unequal_texts_is_left_out_of_the_comparison(export_tiny: Export) -> None:
    module = samples.seeded(DummyGPTModel(samples.TINY_CONFIG | {"vocab_size": 50257, "emb_dim": 2}))
    artifact = export_tiny(module, vocab_size=50257, texts=("Every effort moves you", "Every"))
    text = next(case for case in cases_of(artifact.folder) if case["name"] == "text")
    assert (text["batch"], text["sequence"], text["positions"]) == (2, 4, 5)
    assert artifact.manifest.export["texts"] == ["Every effort moves you", "Every"]
    assert artifact.manifest.model["tokenizer"] == "gpt2"


def test_texts_for_a_module_without_a_tokenizer_are_refused(export_tiny: Export) -> None:
    with pytest.raises(ConfigError, match="vocabulary of 29 and no tokenizer for it; leave "):
        export_tiny(samples.tiny_dummy(), texts=("Every",))


def test_a_text_past_the_context_is_refused(export_tiny: Export, tmp_path: Path) -> None:
    module = samples.seeded(DummyGPTModel(samples.TINY_CONFIG | {"vocab_size": 50257, "emb_dim": 2}))
    with pytest.raises(TextError, match="gives 31 tokens, the context is 24"):
        export_tiny(module, vocab_size=50257, texts=("Every " * 30,))
    assert list(tmp_path.iterdir()) == []


def test_the_seed_chooses_the_ids_and_is_recorded(export_tiny: Export, tmp_path: Path) -> None:
    first = export_tiny(samples.tiny_dummy(), tmp_path / "a", seed=1)
    second = export_tiny(samples.tiny_dummy(), tmp_path / "b", seed=2)
    assert (first.manifest.export["seed"], second.manifest.export["seed"]) == (1, 2)
    assert [case["scale"] for case in cases_of(first.folder)] != [case["scale"] for case in cases_of(second.folder)]


@pytest.mark.parametrize("spent", [0, 1_000, 1_000_000])
@pytest.mark.parametrize(("context", "vocab"), [(64, 29), (1024, 50257), (2048, 257), (2048, 32000)])
def test_one_row_runs_to_the_end_of_the_context_however_much_the_texts_took(
    context: int, vocab: int, spent: int
) -> None:
    (row,) = (case for case in grid_cases(context, vocab, spent=spent) if case.ids.shape == (1, context))
    assert row.note == ""


def test_a_context_beyond_2048_is_stood_for() -> None:
    (row,) = (case for case in grid_cases(4096, 29) if case.ids.shape == (1, 2048))
    assert "stands for 1 x 4096; the full set runs it whole" in row.note


def against_bytes(folder: Path) -> tuple[object, ...]:
    """The options that name the checkpoint of a fixture's artifact."""
    return "--against", folder.parent / "checkpoint" / "model.pth", "--config", folder.parent / "checkpoint/book.json"


def test_a_set_may_be_named_beside_a_case(cli: Callable[..., Run], byte_original: Path) -> None:
    run = cli("validate", byte_original, *against_bytes(byte_original), "--cases", "default,text", "--json")
    assert run.code == 0, run.err
    names = {case["name"] for case in run.json()["cases"]["onnx"]}
    assert {"text", "ids-repeated", "grid-1x1"} <= names


def test_cases_that_a_target_cannot_run_are_a_usage_error(
    cli: Callable[..., Run], byte_original: Path, tmp_path: Path
) -> None:
    checkpoint = byte_original.parent / "checkpoint"
    options = (checkpoint / "model.pth", "--config", checkpoint / "book.json", "--output", tmp_path / "out")
    run = cli("torchscript", *options, "--cases", "cache-steps")
    run.refused(2, "cache-steps")
    assert list(tmp_path.iterdir()) == []


def test_greedy_decoding_is_among_the_cases_of_a_cached_graph(byte_original: Path, byte_uncached: Path) -> None:
    (greedy,) = (case for case in cases_of(byte_original) if case["name"] == "greedy")
    assert greedy["passed"] is True
    assert greedy["top1_agreement"] == 1
    assert "greedy" not in {case["name"] for case in cases_of(byte_uncached)}
