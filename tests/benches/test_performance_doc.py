"""The committed page of measurements is the one that the committed results make."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benches.performance_doc import BLOCKS, NOT_MEASURED, PAGE, render
from benches.record import RESULTS, read_record


@pytest.fixture
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_page_shows_the_committed_results(page: str) -> None:
    assert render(page) == page, "run `python -m benches.performance_doc`"


def test_page_has_every_table(page: str) -> None:
    assert sorted(re.findall(r"<!-- begin ([\w-]+) -->", page)) == sorted(BLOCKS)


def test_changed_result_changes_the_page(page: str, tmp_path: Path) -> None:
    for path in RESULTS.glob("*.json"):
        values = json.loads(path.read_text(encoding="utf-8"))
        values["machine"]["cores"] += 1
        (tmp_path / path.name).write_text(json.dumps(values), encoding="utf-8")
    assert render(page, tmp_path) != page


def test_missing_result_is_said(page: str, tmp_path: Path) -> None:
    assert render(page, tmp_path).count(NOT_MEASURED) == len(BLOCKS)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_result_names_neither_host_nor_paths(path: Path) -> None:
    record = read_record(path.stem)
    assert record is not None
    text = path.read_text(encoding="utf-8")
    assert not re.search(r'"(/|[A-Z]:\\)', text)
    assert set(record["machine"]) == {"cores", "cpu", "libraries", "memory_gb", "python", "system"}
