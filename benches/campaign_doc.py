"""Puts benches/results/campaign.json into the table of docs/security.md; the text around it is written by hand.

`python -m benches.campaign_doc` rewrites the page; with `--check` it only says whether the page is up to date.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benches.page import keep_current
from benches.record import RESULTS, read_record
from benches.tables import machine_line, table

PAGE = Path(__file__).parent.parent / "docs" / "security.md"
NOT_RUN = "*Not run yet: `make campaign`.*"
WHAT: Mapping[str, str] = {
    "configuration": "`config.json`, `generation_config.json`, `tokenizer_config.json` of a checkpoint",
    "exported": "whole exports of such checkpoints",
    "index": "an index of shards, and the shards",
    "manifest": "a manifest with right digests, and links in place of files",
    "onnx": "an ONNX file in an artifact with right hashes",
    "pickle": "a file of `torch.save`, its opcodes and records",
    "request": "a request to `serve`",
    "safetensors": "a safetensors file, its header and bytes",
    "tokenizer": "a tokenizer's files",
    "crowd": "two to eight runs to one output",
    "disk": "files that may not grow beyond a random size",
    "kill": "a signal at a random event of files, or at a random moment",
    "stdout": "a standard output that is closed, full, or read by nobody",
}
FAULTS = ("kill", "disk", "crowd", "stdout")
"""Kinds that are faults of processes and not inputs; their time is the clock's, their memory is not measured."""
_BLOCK = re.compile(r"(?<=<!-- begin campaign -->\n).*?(?=<!-- end campaign -->)", re.DOTALL)


def render(page: str, results: Path = RESULTS) -> str:
    """`page` with the table made anew."""
    return _BLOCK.sub(lambda _: f"{block(read_record('campaign', results))}\n", page)


def block(record: Mapping[str, Any] | None) -> str:
    """A row a kind, the sums in words, and what went wrong by its kind."""
    if record is None:
        return NOT_RUN
    kinds: Mapping[str, Mapping[str, Any]] = record["kinds"]
    rows = [_row(name, kinds[name]) for name in WHAT if name in kinds]
    inputs = [values for name, values in kinds.items() if name not in FAULTS]
    kills = kinds.get("kill", {})
    struck = kills.get("refused", 0)
    said = (
        f"With the seed {record['seed']}: {_sum(inputs, 'tried'):,} inputs, {_sum(inputs, 'bad'):,} of them bad, and "
        f"{kills.get('tried', 0):,} signals, {kills.get('bad', 0):,} of them bad; {struck:,} struck before "
        "the command was done."
    )
    parts = [said, table(["what", "tried", "refused", "bad", "seconds", "slowest, s", "most memory, MB"], rows)]
    if found := [_reasons(name, values) for name, values in sorted(kinds.items()) if values["bad"]]:
        parts.append("\n".join(["Bad were:", "", *found]))
    return "\n\n".join([*parts, machine_line(record)])


def _sum(values: list[Mapping[str, Any]], name: str) -> int:
    return sum(int(one[name]) for one in values)


def _row(name: str, values: Mapping[str, Any]) -> list[str]:
    memory = "" if name in FAULTS else f"{values['peak_mb']:.0f}"
    counts = [f"{values[key]:,}" for key in ("tried", "refused", "bad")]
    return [WHAT[name], *counts, f"{values['seconds']:.0f}", f"{values['slowest_seconds']:.1f}", memory]


def _reasons(name: str, values: Mapping[str, Any]) -> str:
    listed = ", ".join(f"{reason} ({count})" for reason, count in sorted(values["reasons"].items()))
    return f"- {WHAT[name]}: {listed}"


def main() -> None:
    keep_current(PAGE, render, "python -m benches.campaign_doc", __doc__)


if __name__ == "__main__":
    main()
