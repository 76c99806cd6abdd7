"""Puts the compatibility table into docs/consumers.md; the text around it is written by hand.

`python -m benches.consumers_doc` rewrites the page; with `--check` it only says whether the page is up to date.
`make compatibility` runs the tests, and makes results and page anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt_export.artifact.variant_names import VARIANTS

from benches.consumers_record import NAME
from benches.page import keep_current
from benches.performance_doc import NOT_MEASURED, machine_line
from benches.record import RESULTS, read_record

PAGE = Path(__file__).parent.parent / "docs" / "consumers.md"
CONSUMERS: Mapping[str, tuple[str, str]] = {
    "onnxruntime": ("onnxruntime.md", ""),
    "Optimum": ("optimum.md", "transformers below 4.58"),
    "transformers.js": ("transformers-js.md", ""),
    "onnxruntime-web": ("web.md", ""),
    "onnxruntime-genai": ("genai.md", "no `--no-cache`; pads on the right; no batch of ids alone"),
    "Triton": ("triton.md", "8 rows a request unless max_batch_size is raised"),
}
"""The page of each consumer, and its limits, in the order of the table."""
KINDS = {"rotary": "fp32, rotation and grouped heads", "kv8": "cache of 8 bits"}
"""Columns beside those of GPT-2's variants, and their heads."""
PASS = "pass"
_BLOCK = re.compile(r"(<!-- begin compatibility -->\n).*?(<!-- end compatibility -->)", re.DOTALL)


@dataclass
class Notes:
    """Reasons, numbered as they come."""

    texts: list[str]

    def mark(self, text: str) -> str:
        if text not in self.texts:
            self.texts.append(text)
        return f"n/a ({self.texts.index(text) + 1})"


def render(page: str, results: Path = RESULTS) -> str:
    """`page` with the table made anew."""
    return _BLOCK.sub(lambda match: f"{match[1]}{table(results)}\n{match[2]}", page)


def table(results: Path) -> str:
    """Consumers by variants, the reasons of what is not applicable, and the machine."""
    found = read_record(NAME, results)
    if found is None:
        return NOT_MEASURED
    outcomes: list[dict[str, Any]] = found["outcomes"]
    known = [*CONSUMERS, *sorted({line["consumer"] for line in outcomes} - CONSUMERS.keys())]
    notes = Notes([])
    rows = [_row(name, [line for line in outcomes if line["consumer"] == name], notes) for name in known]
    head = ["consumer", "version", *VARIANTS, *KINDS.values(), "run", "limits"]
    lines = [head, ["---"] * len(head), *rows]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    reasons = "".join(f"\n- ({number}) {reason}" for number, reason in enumerate(notes.texts, 1))
    return "\n\n".join(part for part in (text, reasons.strip(), machine_line(found)) if part)


def _row(name: str, outcomes: Sequence[Mapping[str, Any]], notes: Notes) -> list[str]:
    page, limits = CONSUMERS.get(name, ("", ""))
    shown = f"[{name}](consumers/{page})" if page else name
    versions = ", ".join(sorted({line["version"] for line in outcomes}))
    what = "; ".join(sorted({line["what"] for line in outcomes if line["what"]}))
    return [shown, versions, *(_cell(outcomes, variant, notes) for variant in (*VARIANTS, *KINDS)), what, limits]


def _cell(outcomes: Sequence[Mapping[str, Any]], variant: str, notes: Notes) -> str:
    found = {line["outcome"] for line in outcomes if line["variant"] == variant}
    if not found:
        return "not run"
    return ", ".join(sorted(PASS if outcome == PASS else notes.mark(outcome) for outcome in found))


def main() -> None:
    keep_current(PAGE, render, "python -m benches.consumers_doc", __doc__)


if __name__ == "__main__":
    main()
