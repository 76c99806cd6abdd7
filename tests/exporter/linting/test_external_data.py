"""External data, with onnxruntime as the judge of what loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest
from gpt_export.linting.finding import Severity

from tests.exporter.linting.faults import FAULTS, NEAR_MISSES, Planted, data, link_like_a_cache, linked
from tests.exporter.linting.graphs import findings

REFUSES_LINKS = tuple(map(int, ort.__version__.split(".")[:2])) >= (1, 24)


def load(path: Path) -> None:
    ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def plants(*codes: str) -> list[object]:
    return [pytest.param(code, plant, id=f"{code}-{i}") for code in codes for i, plant in enumerate(FAULTS[code])]


@pytest.mark.parametrize(("code", "plant"), plants("GX201", "GX202", "GX207", "GX208"))
def test_onnxruntime_refuses_what_is_an_error(tmp_path: Path, code: str, plant: Planted) -> None:
    path = plant(tmp_path)
    assert Severity.ERROR in {each.severity for each in findings(path) if each.code == code}
    with pytest.raises(Exception, match=r"."):
        load(path)


@pytest.mark.skipif(not REFUSES_LINKS, reason="onnxruntime reads outside the model's folder before 1.24")
@pytest.mark.parametrize(("code", "plant"), plants("GX203"))
def test_onnxruntime_refuses_what_lies_outside(tmp_path: Path, code: str, plant: Planted) -> None:
    path = plant(tmp_path)
    assert code in {each.code for each in findings(path)}
    with pytest.raises(Exception, match=r"xternal data path"):
        load(path)


@pytest.mark.parametrize(
    "plant",
    [
        data(lambda _model, _path: None),
        linked(data(link_like_a_cache)),
        *NEAR_MISSES["GX203"],
        *FAULTS["GX205"],
        *FAULTS["GX206"],
    ],
)
def test_onnxruntime_loads_what_is_no_error(tmp_path: Path, plant: Planted) -> None:
    path = plant(tmp_path)
    assert Severity.ERROR not in {each.severity for each in findings(path)}
    load(path)


def test_a_missing_file_is_told_once_for_all_its_tensors(tmp_path: Path) -> None:
    (found,) = [each for each in findings(FAULTS["GX201"][0](tmp_path)) if each.code == "GX201"]
    assert found.message == "3 tensors (wte, wpe, head) are in model.onnx_data, which does not exist"
    assert str(found.location) == "file model.onnx_data"


def test_what_lies_outside_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = FAULTS["GX203"][0](tmp_path / "in")
    opened: list[Path] = []
    real = Path.open

    def spy(self: Path, *args: Any, **how: Any) -> Any:
        opened.append(self)
        return real(self, *args, **how)

    monkeypatch.setattr(Path, "open", spy)
    assert "GX203" in {each.code for each in findings(path)}
    assert not [each for each in opened if each.name == "model.onnx_data"]
    findings(FAULTS["GX205"][0](tmp_path / "whole"))
    assert [each for each in opened if each.name == "model.onnx_data"], "the spy sees what is read"
