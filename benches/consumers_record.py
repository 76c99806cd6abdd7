"""Turns what the tests recorded with GPT_EXPORT_COMPATIBILITY into `results/consumers.json`.

`python -m benches.consumers_record FILE` reads the file's JSON lines; docs/consumers.md is made from the result.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benches.record import write_record

NAME = "consumers"
FIELDS = ("consumer", "variant", "version", "outcome", "what")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Every outcome once, sorted."""
    lines = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line)
    found = {tuple(str(line[field]) for field in FIELDS) for line in lines}
    return [dict(zip(FIELDS, values, strict=True)) for values in sorted(found)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path, help="what the tests wrote")
    print(write_record(NAME, {"outcomes": read_lines(parser.parse_args().record)}))


if __name__ == "__main__":
    main()
