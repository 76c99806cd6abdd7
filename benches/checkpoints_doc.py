"""Puts the table of families, prefixes and containers into docs/checkpoints.md, from reading each of them.

`python -m benches.checkpoints_doc` rewrites the page; with `--check` it only says whether the page is up to date. A
mark means that the logits are those of the family's own code.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from gpt_export_models.checkpoints import read_checkpoint

from benches.page import keep_current
from tests.models.checkpoints.oracles import LIMIT, logits_of, off_by
from tests.models.checkpoints.wrappings import CONTAINERS, FAMILIES, PREFIXES, Example, ids_of, written

PAGE = Path(__file__).parent.parent / "docs" / "checkpoints.md"
_BLOCK = re.compile(r"(<!-- begin wrappings -->\n).*?(<!-- end wrappings -->)", re.DOTALL)


def render(page: str) -> str:
    """`page` with its table made anew."""
    return _BLOCK.sub(lambda match: f"{match[1]}{wrappings_table()}\n{match[2]}", page)


def wrappings_table() -> str:
    """By family and container, how many of the prefixes are read with the logits of the family's own code."""
    head = f"| family | to be said | {' | '.join(CONTAINERS)} |\n|{'---|' * (len(CONTAINERS) + 2)}\n"
    rows = []
    for name, make in FAMILIES.items():
        example = make()
        said = ", ".join(f"`--{option}`" for option in example.stated) or "nothing"
        cells = [f"{_right(example, container)} of {len(PREFIXES)}" for container in CONTAINERS]
        rows.append(f"| {name} | {said} | {' | '.join(cells)} |")
    shown = ", ".join(f"`{prefix}`" if prefix else "none" for prefix in PREFIXES)
    return f"{head}{chr(10).join(rows)}\n\nThe prefixes of the names: {shown}."


def _right(example: Example, container: str) -> int:
    ids = ids_of(example)
    count = 0
    for prefix in PREFIXES:
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = read_checkpoint(written(Path(folder), example, prefix, container), **example.stated)
            count += off_by(logits_of(checkpoint, ids), example.logits(ids)) < LIMIT
    return count


if __name__ == "__main__":
    keep_current(PAGE, render, "python -m benches.checkpoints_doc", __doc__)
