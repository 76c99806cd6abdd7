"""Puts what became of every module of the zoo into docs/modules.md; the text between the tables is written by hand.

`python -m benches.modules_doc` rewrites the page; with `--check` it only says whether the page is up to date.
`python -m benches.zoo.record` makes the record anew.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from benches.page import keep_current
from benches.performance_doc import NOT_MEASURED
from benches.record import RESULTS, read_record
from benches.tables import machine_line, table

PAGE = Path(__file__).parent.parent / "docs" / "modules.md"
_BLOCK = re.compile(r"(?P<begin><!-- begin (?P<name>[\w-]+) -->\n).*?(?P<end><!-- end (?P=name) -->)", re.DOTALL)
Row = Mapping[str, Any]

OURS, QUANTISED, DYNAMO, SCRIPT = "gpt-export", "gpt-export, quantised", "torch.onnx.export", "torch.jit.script"


def render(page: str, results: Path = RESULTS) -> str:
    """`page` with every block between markers made anew.

    Raises:
        KeyError: a marker names no block of `BLOCKS`.
    """
    return _BLOCK.sub(lambda match: f"{match['begin']}{BLOCKS[match['name']](results)}\n{match['end']}", page)


def kinds_table(results: Path) -> str:
    """Kinds of modules by road, cache and precision: how many of each kind."""
    record = read_record("zoo", results)
    if record is None or not record["animals"]:
        return NOT_MEASURED
    taken = [row for row in record["animals"].values() if row["exports"]]
    kinds: dict[str, list[Row]] = {}
    for row in taken:
        kinds.setdefault(row["kind"], []).append(row)
    lines = [_counted(kind, rows) for kind, rows in kinds.items()]
    lines.append(_counted("**all**", taken))
    head = ["kind of module", "of", "exported", "by script", "by export", "cache", "int8", "int4", "torch.onnx.export"]
    return f"{machine_line(record)} {_share(taken)}\n\n{table([*head, 'torch.jit.script'], lines)}"


def families_table(results: Path) -> str:
    """The families of transformers, each with what became of it."""
    record = read_record("zoo", results)
    if record is None or not record["families"]:
        return NOT_MEASURED
    rows = record["families"]
    exported = [name for name, row in rows.items() if _is_right(row, OURS)]
    cached = [name for name in exported if rows[name][OURS]["facts"]["cached"]]
    uncached = [name for name in exported if name not in cached]
    refused = [name for name, row in rows.items() if not _is_right(row, OURS)]
    lines = [
        ["with a cache", str(len(cached)), _names(cached)],
        ["without one", str(len(uncached)), _names(uncached)],
        ["not at all", str(len(refused)), _names(refused)],
    ]
    return table(["exported", "families", "which"], lines)


def refusals_table(results: Path) -> str:
    """What must not be exported, and the sentence that each ends in."""
    record = read_record("zoo", results)
    if record is None or not record["animals"]:
        return NOT_MEASURED
    lines = [
        [row["kind"], f"`{name}`", _cell(row[OURS]["why"]) or "**exported**"]
        for name, row in record["animals"].items()
        if not row["exports"] and OURS in row
    ]
    return table(["kind", "module", "the error"], lines)


def short_table(results: Path) -> str:
    """What should be exported, or have a cache, and is not or has none."""
    record = read_record("zoo", results)
    if record is None or not record["animals"]:
        return NOT_MEASURED
    lines = []
    for name, row in {**record["animals"], **record["families"]}.items():
        if not row["exports"] or OURS not in row:
            continue
        ours = row[OURS]
        if ours["outcome"] != "right":
            lines.append([f"`{name}`", ours["outcome"], _cell(ours["why"])])
        elif row["cached"] and not ours["facts"]["cached"]:
            lines.append([f"`{name}`", "no cache", _cell(_of_cache(ours["facts"]["notes"]))])
    return table(["module", "it is", "because"], lines) if lines else "None."


BLOCKS: Mapping[str, Callable[[Path], str]] = {
    "zoo": kinds_table,
    "families": families_table,
    "refusals": refusals_table,
    "short": short_table,
}
"""By marker, what makes its text from the folder of results."""


def _counted(kind: str, rows: Iterable[Row]) -> list[str]:
    rows = list(rows)
    roads = Counter(row[OURS]["facts"]["road"] for row in rows if _is_right(row, OURS))
    cached = sum(_is_right(row, OURS) and row[OURS]["facts"]["cached"] for row in rows)
    tried = [row[QUANTISED]["facts"].get("precisions", ()) for row in rows if QUANTISED in row]
    of_tried = "" if len(tried) == len(rows) else f" of {len(tried)}"
    counts = (
        len(rows),
        roads.total(),
        roads["script"],
        roads["export"],
        cached,
        *(f"{sum(name in each for each in tried)}{of_tried}" if tried else "-" for name in ("int8", "int4")),
        *(sum(_is_right(row, column) for row in rows) for column in (DYNAMO, SCRIPT)),
    )
    return [kind, *map(str, counts)]


def _share(rows: list[Row]) -> str:
    """How many of those that one of torch's roads exports rightly are exported here, and how many files are wrong."""
    either = [row for row in rows if _is_right(row, DYNAMO) or _is_right(row, SCRIPT)]
    ours = sum(_is_right(row, OURS) for row in either)
    wrong = sum(row.get(OURS, {}).get("outcome") == "wrong" for row in rows)
    theirs = sum(row.get(column, {}).get("outcome") == "wrong" for row in rows for column in (DYNAMO, SCRIPT))
    share = f" ({ours / len(either):.0%})" if either else ""
    return (
        f"Of the {len(either)} modules that torch's exporters take by either road, right at every shape "
        f"that was tried, {ours}{share} leave as an artifact. Files with wrong numbers: {wrong or 'none'} of ours, "
        f"{theirs or 'none'} of torch's."
    )


def _is_right(row: Row, column: str) -> bool:
    return bool(row.get(column, {}).get("outcome") == "right")


def _of_cache(notes: Iterable[str]) -> str:
    return next((note for note in notes if "cache" in note), "")


def _names(names: Iterable[str]) -> str:
    return ", ".join(names)


def _cell(text: str) -> str:
    """`text` in one cell of a table."""
    return text.replace("|", "\\|")


def main() -> None:
    keep_current(PAGE, render, "python -m benches.modules_doc", __doc__)


if __name__ == "__main__":
    main()
