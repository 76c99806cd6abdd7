"""Every fault of the table is caught, and named. `GPT_EXPORT_RECORD=1` writes what was found for docs/parity.md."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gpt_export.artifact.reading import Artifact
from gpt_export.errors import ParityError
from gpt_export.gate.report import Deviation, ParityReport
from gpt_export.pipeline import comparison, stages
from gpt_export.sources.source import Source
from gpt_export_models.blank import blank

from benches.record import write_record
from tests.mutations.cache_faults import CACHE_FAULTS, FORGOTTEN
from tests.mutations.faults import FAULTS, Fault
from tests.mutations.fused_faults import FUSED_FAULTS
from tests.mutations.gate import CONFIG, FUSED_CONFIG, found_source, fused_source, good_source, judge, judge_bits, plant
from tests.mutations.llama import CONTEXT
from tests.mutations.llama_faults import LLAMA_FAULTS

RECORD = "GPT_EXPORT_RECORD"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Artifact]:
    """The artifacts that faults are planted into, by whether their head is tied; their export passed the gate."""
    folder = tmp_path_factory.mktemp("good")
    return {tied: stages.export(good_source(tied=tied), CONFIG, folder / f"tied-{tied}") for tied in (False, True)}


@pytest.fixture(scope="module")
def found() -> Iterator[list[dict[str, Any]]]:
    """What was found, written when all faults have been through."""
    rows: list[dict[str, Any]] = []
    yield rows
    if os.environ.get(RECORD) and len(rows) == len(FAULTS):
        write_record("mutations", {"faults": rows})


@pytest.mark.filterwarnings("ignore:ONNX export mode is set to TrainingMode.EVAL")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_a_planted_fault_is_caught_and_named(
    fault: Fault, good: dict[bool, Artifact], found: list[dict[str, Any]], tmp_path: Path
) -> None:
    source = good_source(tied=fault.tied)
    artifact = plant(fault, good[fault.tied], tmp_path / "faulty")
    found.append(_caught(fault, artifact, source))


def _caught(fault: Fault, artifact: Artifact, source: Source) -> dict[str, Any]:
    """The row of a fault that was found where it is."""
    bits = judge_bits(artifact, source)
    assert bits.passed is not fault.bits, bits.mismatches

    # A weight that is not the source's must show in what it does as well: other people's files have no bits to compare.
    report = judge(artifact, source, bits=not (fault.bits and fault.outputs))
    with pytest.raises(ParityError) as caught:
        comparison.raise_if_failed(report, "nothing was published")
    assert caught.value.exit_code == 3
    first = report.first_fault
    if fault.part is None:
        assert first is None, first and first.explain()
    else:
        assert first is not None, report.failures
        assert (first.layer, first.part) == (fault.layer, fault.part), first.explain()
        assert fault.cause in first.cause, first.explain()
        assert first.explain() in str(caught.value)
    return _row(fault, report, first)


def _row(fault: Fault, report: ParityReport, first: Deviation | None) -> dict[str, Any]:
    cases = report.targets["onnx"]
    return {
        "fault": fault.name,
        "planted": "in the file" if fault.edit else "in the scripted model",
        "caught_by": [
            *(["weights"] if fault.bits else []),
            *(["graph"] if report.faults else []),
            *(["outputs"] if any(not case.passed for case in cases) else []),
        ],
        "cases": len(cases),
        "failed_cases": sum(not case.passed for case in cases),
        "layer": first.layer if first else None,
        "part": first.part if first else None,
        "operator": first.operator if first else None,
        "cause": first.cause if first else None,
    }


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The artifact in onnxruntime's own operators that faults are planted into; its export passed the gate."""
    return stages.export(fused_source(), FUSED_CONFIG, tmp_path_factory.mktemp("fused") / "artifact")


@pytest.fixture(scope="module")
def found_fused() -> Iterator[list[dict[str, Any]]]:
    """What was found in the fused graph, written when all faults have been through."""
    rows: list[dict[str, Any]] = []
    yield rows
    if os.environ.get(RECORD) and len(rows) == len(FUSED_FAULTS):
        write_record("mutations-fused", {"faults": rows})


@pytest.mark.parametrize("fault", FUSED_FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_a_fault_planted_in_fused_operators_is_caught_and_named(
    fault: Fault, fused: Artifact, found_fused: list[dict[str, Any]], tmp_path: Path
) -> None:
    source = fused_source()
    found_fused.append(_caught(fault, plant(fault, fused, tmp_path / "faulty"), source))


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The artifact whose cache was found by the pass; its export passed the gate."""
    return stages.export(found_source(), CONFIG, tmp_path_factory.mktemp("cached") / "artifact")


@pytest.fixture(scope="module")
def found_cached() -> Iterator[list[dict[str, Any]]]:
    """What was found of the faults of the cache pass, written when all have been through."""
    rows: list[dict[str, Any]] = []
    yield rows
    if os.environ.get(RECORD) and len(rows) == len(CACHE_FAULTS):
        write_record("mutations-cache", {"faults": rows})


@pytest.mark.parametrize("fault", CACHE_FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_a_fault_of_the_cache_pass_is_caught_and_named(
    fault: Fault, cached: Artifact, found_cached: list[dict[str, Any]], tmp_path: Path
) -> None:
    found_cached.append(_caught(fault, plant(fault, cached, tmp_path / "faulty"), found_source()))


@pytest.fixture(scope="module")
def found_llama() -> Iterator[list[dict[str, Any]]]:
    """What was found of the faults of Llama's kin, written when all have been through."""
    rows: list[dict[str, Any]] = []
    yield rows
    if os.environ.get(RECORD) and len(rows) == len(LLAMA_FAULTS):
        write_record("mutations-llama", {"faults": rows})


@pytest.mark.parametrize("fault", LLAMA_FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_a_fault_of_llamas_kin_is_caught_and_named(
    fault: Fault, cached: Artifact, found_llama: list[dict[str, Any]], tmp_path: Path
) -> None:
    source = found_source()
    found_llama.append(_caught(fault, plant(fault, cached, tmp_path / "faulty", source), source))


@pytest.mark.parametrize(
    "name", ["the window one token wider", "the soft cap left out", "1 + w for w in the RMS norms"]
)
def test_a_fault_of_llamas_kin_is_named_in_fused_operators_too(name: str, tmp_path: Path) -> None:
    (fault,) = (fault for fault in LLAMA_FAULTS if fault.name == name)
    source = found_source()
    assert fault.scripted is not None
    wrong = dataclasses.replace(source, skeleton=blank(fault.scripted))
    artifact = stages.export(wrong, dataclasses.replace(FUSED_CONFIG, gate="off"), tmp_path / "faulty")
    row = _caught(fault, artifact, source)
    assert row["operator"] in ("GroupQueryAttention", "SkipSimplifiedLayerNormalization")


def test_a_window_that_is_forgotten_behind_a_past_shows_only_where_cases_step_across_it(
    cached: Artifact, tmp_path: Path
) -> None:
    """Seventeen steps, and every single pass, say nothing of a window of 22."""
    (fault,) = (fault for fault in CACHE_FAULTS if fault.name == FORGOTTEN)
    report = judge(plant(fault, cached, tmp_path / "faulty"), found_source())
    failed = {case.name for case in report.targets["onnx"] if not case.passed}
    across = {"cache-turns", "cache-turns-pieces", "pad-left-turns", f"grid-1x{CONTEXT}"}
    assert failed == across


def test_the_table_covers_every_part_and_every_layer() -> None:
    assert len(FAULTS) >= 40
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert {fault.part for fault in FAULTS if fault.part} == {"embedding", "attention", "mlp", "norm", "head"}
    assert {fault.layer for fault in FAULTS} == {None, 0, 1, 2, 3}


def test_the_road_without_a_fault_is_free(good: dict[bool, Artifact], fused: Artifact, cached: Artifact) -> None:
    """The control: the same artifacts, judged in the same way."""
    all_good = [(artifact, good_source(tied=tied)) for tied, artifact in good.items()]
    for artifact, source in (*all_good, (fused, fused_source()), (cached, found_source())):
        report = judge(artifact, source)
        assert report.failures == ()
        assert report.first_fault is None
        assert report.layers
        assert max(deviation.ratio for deviation in report.layers) < 1


def test_every_activation_of_the_model_is_found_in_the_graph(good: dict[bool, Artifact]) -> None:
    """The bisection is as fine as the model's modules: each linear, norm and table of every layer has its place."""
    for tied, artifact in good.items():
        source = good_source(tied=tied)
        report = judge(artifact, source)
        named = {name for deviation in report.layers for name in deviation.module.replace(" + ", " ").split()}
        modules = {name.rpartition(".")[0] for name in source.weights}
        assert modules - named == set()


def test_a_reference_with_dropout_on_is_no_judge(good: dict[bool, Artifact]) -> None:
    source = good_source(tied=False)
    drawing = dataclasses.replace(source, reference=lambda: source.reference().train())
    report = judge(good[False], drawing)
    assert not report.passed
    assert all("is dropout left on?" in case.explain() for case in report.targets["onnx"])
