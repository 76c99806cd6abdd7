"""Every rule finds its fault and leaves what is close to it alone."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort
import pytest
from gpt_export.linting.finding import Severity
from gpt_export.linting.registry import rule
from gpt_export.linting.rules import rules
from gpt_export.linting.settings import CONSUMERS

from tests.exporter.linting.faults import FAULTS, NEAR_MISSES, Planted
from tests.exporter.linting.graphs import codes, findings, good, save, uncached

NEED_A_TARGET = {"GX301", "GX302", "GX303"}


def cases(table: dict[str, list[Planted]]) -> list[object]:
    return [pytest.param(code, plant, id=f"{code}-{i}") for code in table for i, plant in enumerate(table[code])]


def test_the_good_decoder_loads_and_has_no_findings(tmp_path: Path) -> None:
    path = save(good(), tmp_path)
    ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert findings(path) == ()
    assert findings(path, consumers=CONSUMERS, target_ort="1.17") == ()


@pytest.mark.parametrize(("code", "plant"), cases(FAULTS))
def test_a_planted_fault_is_found(tmp_path: Path, code: str, plant: Planted) -> None:
    found = [each for each in findings(plant(tmp_path)) if each.code == code]
    assert found
    for each in found:
        assert each.message
        assert each.remedy


@pytest.mark.parametrize(("code", "plant"), cases(NEAR_MISSES))
def test_what_is_close_to_a_fault_is_none(tmp_path: Path, code: str, plant: Planted) -> None:
    assert code not in codes(plant(tmp_path))


def test_every_rule_has_a_planted_fault() -> None:
    assert {each.code for each in rules()} == FAULTS.keys() | NEED_A_TARGET


def test_a_code_is_registered_once() -> None:
    with pytest.raises(ValueError, match="GX101 is taken"):
        rule("GX101", Severity.NOTE, "", "")


@pytest.mark.parametrize("code", ["GX401", "GX413", "GX421"])
def test_contracts_of_a_cached_decoder_are_errors(tmp_path: Path, code: str) -> None:
    severities = {each.severity for each in findings(FAULTS[code][0](tmp_path)) if each.code == code}
    assert severities == {Severity.ERROR}


def test_contracts_are_notes_for_what_is_no_cached_decoder(tmp_path: Path) -> None:
    path = save(uncached(), tmp_path)
    assert {each.severity for each in findings(path)} == {Severity.NOTE}
    assert {each.code for each in findings(path)} == {"GX406", "GX426"}


def test_a_consumer_that_is_asked_for_is_taken_at_its_word(tmp_path: Path) -> None:
    found = findings(save(uncached(), tmp_path), consumers=("onnxruntime-genai",))
    assert [(each.code, each.severity) for each in found] == [("GX426", Severity.ERROR)]


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_only_the_consumers_asked_for_speak(tmp_path: Path, consumer: str) -> None:
    model = uncached()
    model.graph.output[0].name = model.graph.node[1].output[0] = "scores of it"
    found = findings(save(model, tmp_path, "m.onnx"), consumers=(consumer,))
    assert {each.consumer for each in found} == {consumer}


def test_a_message_says_what_got_and_allowed(tmp_path: Path) -> None:
    found = findings(FAULTS["GX101"][0](tmp_path))[0]
    assert found.message == "input_ids is int64 [1, sequence_length]; dim 0, the batch, must be a name"
    assert "dynamic batch axis" in found.remedy
    assert str(found.location) == "tensor input_ids"
