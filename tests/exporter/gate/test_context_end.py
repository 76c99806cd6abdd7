"""A long row that is judged by what the first layers leave of it: as sure, for less."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from gpt_export.artifact.reading import Artifact
from gpt_export.gate import reference_logits
from gpt_export.gate.report import ParityReport
from gpt_export.pipeline import stages
from gpt_export.pipeline.config import ExportConfig
from gpt_export.sources.source import Source
from gpt_export_models.blank import blank
from gpt_export_models.gpt import GPTDecoder
from torch import Tensor

from tests.mutations.faults import Fault
from tests.mutations.fused_faults import attention_with
from tests.mutations.gate import judge, plant
from tests.mutations.good import VICTIM, VICTIM_SPREAD, random_source

CONTEXT, LATE = 64, 50
CONFIG = dataclasses.replace(VICTIM, n_layers=8, n_heads=2, emb_dim=16, context_length=CONTEXT)
LONG = f"grid-1x{CONTEXT}"


class StopsCounting(GPTDecoder):
    """Positions from `LATE` on are all the same, as of a table that is too short."""

    @torch.jit.export
    def embed(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        x: Tensor = self.tok_emb(input_ids) + self.pos_emb(torch.clamp(position_ids, max=50))
        return x


@pytest.fixture(scope="module")
def source() -> Source:
    return random_source(CONFIG, VICTIM_SPREAD, seed=5, name="deep")


@pytest.fixture(scope="module", params=["ort", "portable"])
def good(request: pytest.FixtureRequest, source: Source, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    config = ExportConfig(gate="off", profile=request.param)
    return stages.export(source, config, tmp_path_factory.mktemp("deep") / "artifact")


@pytest.fixture(autouse=True)
def much_work(monkeypatch: pytest.MonkeyPatch, source: Source) -> None:
    """The longest row is too much work, and there are no batches of such rows."""
    parameters = sum(tensor.numel() for tensor in source.weights.values())
    monkeypatch.setattr("gpt_export.gate.context_end.MUCH_WORK", parameters * LATE)
    monkeypatch.setattr("gpt_export.gate.context_end.LEAST_LENGTH", LATE)
    monkeypatch.setattr("gpt_export.gate.cases.DEFAULT_POSITIONS", 0)


@pytest.fixture
def lengths(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of the rows that the reference ran whole."""
    ran: list[int] = []
    run = reference_logits.logits_of

    def counted(module: Any, ids: Any) -> Any:
        ran.append(ids.shape[1])
        return run(module, ids)

    monkeypatch.setattr(reference_logits, "logits_of", counted)
    return ran


def long_row(report: ParityReport) -> Any:
    return next(case for case in report.targets["onnx"] if case.name == LONG)


def failed(report: ParityReport) -> set[str]:
    return {case.name for case in report.targets["onnx"] if not case.passed}


def test_a_correct_graph_passes_without_running_the_row_whole(
    good: Artifact, source: Source, lengths: list[int]
) -> None:
    report = judge(good, source)
    assert report.failures == ()
    row = long_row(report)
    assert (row.positions, row.limit_source) == (CONTEXT, "layers")
    assert row.note == "what 2 of 8 layers leave is compared; the others do the same"
    assert 0 < row.worst_ratio < 1
    assert lengths
    assert CONTEXT not in lengths


def test_positions_that_end_too_early_are_caught_and_placed(source: Source, tmp_path: Path) -> None:
    wrong = dataclasses.replace(source, skeleton=blank(lambda: StopsCounting(CONFIG)))
    report = judge(stages.export(wrong, ExportConfig(gate="off"), tmp_path / "faulty"), source)
    assert failed(report) == {LONG}
    assert long_row(report).limit_source == "probe"  # the logits said it, not the layers alone
    assert report.first_fault is not None
    assert report.first_fault.part == "embedding"


@pytest.mark.parametrize("layer", [1, 5, 7])
def test_a_layer_of_its_own_kind_has_the_row_run_whole(
    layer: int, source: Source, lengths: list[int], tmp_path: Path
) -> None:
    good = stages.export(source, ExportConfig(gate="off"), tmp_path / "good")
    fault = Fault(name="window", edit=attention_with(layer, "local_window_size", LATE))
    report = judge(plant(fault, good, tmp_path / "faulty", source), source)
    assert failed(report) == {LONG}
    assert CONTEXT in lengths
    assert report.first_fault is not None
    assert (report.first_fault.layer, report.first_fault.part) == (layer, "attention")


def test_layers_that_may_differ_have_the_row_run_whole(good: Artifact, source: Source, lengths: list[int]) -> None:
    report = judge(good, dataclasses.replace(source, alike_layers=False))
    assert report.failures == ()
    assert long_row(report).limit_source == "probe"
    assert CONTEXT in lengths


def test_limits_of_logits_are_not_held_to_hidden_states(
    good: Artifact, source: Source, lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpt_export.gate.context_end.NOISE_CEILING", 0.0)
    assert long_row(judge(good, source)).limit_source == "probe"
    assert CONTEXT in lengths
