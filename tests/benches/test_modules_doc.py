from __future__ import annotations

from pathlib import Path

import pytest

from benches.modules_doc import BLOCKS, PAGE, kinds_table, render
from benches.record import read_record, write_record
from tests.zoo import animals

RIGHT = {
    "outcome": "right",
    "facts": {"road": "export", "cached": True, "notes": [], "precisions": ["int8"]},
    "why": "",
}
WRONG = {"outcome": "wrong", "facts": {}, "why": "other numbers or shapes"}


def row(**columns: dict[str, object]) -> dict[str, object]:
    names = {"ours": "gpt-export", "dynamo": "torch.onnx.export", "script": "torch.jit.script"}
    named = {names[key]: value for key, value in columns.items()}
    return {"kind": "a kind", "exports": True, "cached": True, "gpt-export, quantised": RIGHT, **named}


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert render(page) == page, "run python -m benches.modules_doc"
    assert all(f"<!-- begin {name} -->" in page for name in BLOCKS)


def test_every_animal_is_recorded_with_every_column() -> None:
    record = read_record("zoo")
    assert record is not None, "run python -m benches.zoo.record"
    assert set(record["animals"]) == {animal.name for animal in animals()}
    assert all("gpt-export" in found and "torch.onnx.export" in found for found in record["animals"].values())


def test_a_wrong_file_is_counted_as_wrong_and_not_as_exported(tmp_path: Path) -> None:
    found = {"a": row(ours=RIGHT, dynamo=RIGHT, script=WRONG), "b": row(ours=WRONG, dynamo=RIGHT, script=WRONG)}
    write_record("zoo", {"animals": found, "families": {}}, tmp_path)
    text = kinds_table(tmp_path)
    assert "Of the 2 modules" in text
    assert "1 (50%) leave as an artifact. Files with wrong numbers: 1 of ours, 2 of torch's." in text
    assert "| a kind | 2 | 1 | 0 | 1 | 1 | 2 | 0 | 2 | 0 |" in text


@pytest.mark.parametrize("name", BLOCKS)
def test_a_page_without_results_says_so(name: str, tmp_path: Path) -> None:
    page = f"<!-- begin {name} -->\nold\n<!-- end {name} -->\n"
    assert render(page, tmp_path) == f"<!-- begin {name} -->\n*Not measured yet.*\n<!-- end {name} -->\n"
