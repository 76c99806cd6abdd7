"""Puts benches/results/versions.json into the table of docs/versions.md; the text around it is written by hand.

`python -m benches.versions_doc` rewrites the page; with `--check` it only says whether the page is up to date.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benches.page import keep_current
from benches.record import RESULTS, read_record
from benches.versions.plan import PACKAGES

PAGE = Path(__file__).parent.parent / "docs" / "versions.md"
NOT_RUN = "*Not run yet.*"
PARTS: Mapping[str, str] = {
    "portable": "`--profile portable`, TorchScript",
    "ort": "`--profile ort`",
    "quantised": "int8",
    "module": "a module",
}
_BLOCK = re.compile(r"(?<=<!-- begin versions -->\n).*?(?=<!-- end versions -->)", re.DOTALL)


def render(page: str, results: Path = RESULTS) -> str:
    """`page` with the table made anew."""
    return _BLOCK.sub(lambda _: f"{table(read_record('versions', results))}\n", page)


def table(record: Mapping[str, Any] | None) -> str:
    """A row a trial, and below it what did not pass, in the words of the program that refused."""
    if record is None:
        return NOT_RUN
    head = ["tried", *PACKAGES, *PARTS.values()]
    lines = [head, ["---"] * len(head)]
    refused: list[str] = []
    for row in record["trials"]:
        tried = f"{row['end']} {row['package']}"
        versions = row.get("versions", {})
        cells = [
            f"**{versions[name]}**" if name == row["package"] else versions[name] if versions else ""
            for name in (PACKAGES if versions else ())
        ] or [""] * len(PACKAGES)
        outcomes = _outcomes(row)
        lines.append([tried, *cells, *("passed" if text == "passed" else "**refused**" for text in outcomes)])
        refused += [
            f"- {tried}, {what}: {text}"
            for what, text in zip(PARTS.values(), outcomes, strict=True)
            if text != "passed"
        ]
    machine = record["machine"]
    where = f"Run on Python {machine['python']}, {machine['system']}."
    listed = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n\n".join([listed, *(["\n".join(refused)] if refused else []), where])


def _outcomes(row: Mapping[str, Any]) -> Sequence[str]:
    if "failure" in row:
        return [str(row["failure"])] * len(PARTS)
    return [str(row["parts"][part]["outcome"]) for part in PARTS]


def main() -> None:
    keep_current(PAGE, render, "python -m benches.versions_doc", __doc__)


if __name__ == "__main__":
    main()
