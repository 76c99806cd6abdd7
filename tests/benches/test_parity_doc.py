from __future__ import annotations

from pathlib import Path

import pytest

from benches.parity_doc import BLOCKS, PAGE, render
from benches.record import read_record
from tests.mutations.faults import FAULTS, Fault
from tests.mutations.fused_faults import FUSED_FAULTS


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert render(page) == page, "run python -m benches.parity_doc"
    assert all(f"<!-- begin {name} -->" in page for name in BLOCKS)


@pytest.mark.parametrize(("name", "faults"), [("mutations", FAULTS), ("mutations-fused", FUSED_FAULTS)])
def test_the_recorded_faults_are_those_of_the_table_and_what_it_says_of_them(
    name: str, faults: tuple[Fault, ...]
) -> None:
    record = read_record(name)
    assert record is not None, "run GPT_EXPORT_RECORD=1 pytest tests/mutations/test_mutations.py"
    found = [(row["fault"], row["layer"], row["part"]) for row in record["faults"]]
    assert found == [(fault.name, fault.layer, fault.part) for fault in faults]
    assert all(row["caught_by"] for row in record["faults"])


def test_a_page_without_results_says_so(tmp_path: Path) -> None:
    page = "<!-- begin faults -->\nold\n<!-- end faults -->\n"
    assert render(page, tmp_path) == "<!-- begin faults -->\n*Not measured yet.*\n<!-- end faults -->\n"
