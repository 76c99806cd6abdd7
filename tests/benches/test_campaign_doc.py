from __future__ import annotations

from pathlib import Path
from typing import Any

from benches.campaign_doc import FAULTS, PAGE, WHAT, block, render
from benches.record import read_record
from tests.campaign.faults import SHARES
from tests.campaign.kinds import KINDS


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert "<!-- begin campaign -->" in page
    assert render(page) == page, "run python -m benches.campaign_doc"


def test_every_kind_has_words_and_a_row() -> None:
    assert set(WHAT) == {*KINDS, *SHARES}
    assert set(FAULTS) == set(SHARES)
    record = read_record("campaign")
    assert record is not None, "run make campaign"
    assert set(record["kinds"]) == set(WHAT)


def test_what_was_bad_is_told_and_not_summed_away() -> None:
    values: dict[str, Any] = {
        "tried": 2000,
        "bad": 2,
        "refused": 5,
        "seconds": 1.0,
        "slowest_seconds": 0.5,
        "peak_mb": 3.0,
    }
    machine = {"libraries": {}, "cores": 1, "cpu": "x", "memory_gb": 1, "system": "x", "python": "3"}
    kinds = {"onnx": values | {"reasons": {"hung": 2}}, "kill": values | {"bad": 0, "reasons": {}}}
    told = block({"kinds": kinds, "seed": 1, "machine": machine})
    assert "2,000 inputs, 2 of them bad, and 2,000 signals, 0 of them bad; 5 struck before" in told
    assert "hung (2)" in told


def test_a_page_without_results_says_so(tmp_path: Path) -> None:
    page = "<!-- begin campaign -->\nold\n<!-- end campaign -->\n"
    assert "Not run yet" in render(page, tmp_path)
