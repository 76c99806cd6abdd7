from __future__ import annotations

import json
from pathlib import Path

from benches.consumers_doc import CONSUMERS, PAGE, render, table
from benches.consumers_record import read_lines
from benches.record import write_record

EMPTY = "<!-- begin compatibility -->\nold\n<!-- end compatibility -->\n"


def line(consumer: str, variant: str = "fp32", outcome: str = "pass", what: str = "prompt") -> dict[str, str]:
    return {"consumer": consumer, "version": "1.2", "variant": variant, "outcome": outcome, "what": what}


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert render(page) == page, "run python -m benches.consumers_doc"
    assert "<!-- begin compatibility -->" in page


def test_a_page_without_results_says_so(tmp_path: Path) -> None:
    assert "*Not measured yet.*" in render(EMPTY, tmp_path)


def test_every_consumer_is_a_row_and_every_reason_a_note(tmp_path: Path) -> None:
    reason = "it has no name for this"
    outcomes = [line("Optimum"), line("Optimum", "int8", reason), line("Triton", "int4", reason), line("another")]
    write_record("consumers", {"outcomes": outcomes}, tmp_path)
    rows = {row.split(" | ")[0][2:]: row for row in table(tmp_path).splitlines() if row.startswith("| ")}
    assert len(rows) == 2 + len(CONSUMERS) + 1  # head and rule, and another
    assert (
        "| 1.2 | pass | not run | n/a (1) | not run | not run | not run | prompt |"
        in rows["[Optimum](consumers/optimum.md)"]
    )
    assert "| not run | not run | not run | n/a (1) | not run |" in rows["[Triton](consumers/triton.md)"]
    assert rows["another"].startswith("| another | 1.2 | pass |")
    assert table(tmp_path).count(reason) == 1


def test_lines_that_say_the_same_are_one(tmp_path: Path) -> None:
    lines = [line("b"), line("a"), line("b")]
    (tmp_path / "lines").write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")
    assert [each["consumer"] for each in read_lines(tmp_path / "lines")] == ["a", "b"]
