"""The command line of the generators that keep a page of docs/ current."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path


def keep_current(page: Path, render: Callable[[str], str], command: str, description: str | None) -> None:
    """Writes `page` as `render` makes it from what it is; with `--check` exits 1 instead if that would change it.

    Args:
        command: what to run when the page is not up to date, for the message.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the page is not up to date")
    options = parser.parse_args()
    found = page.read_text(encoding="utf-8")
    rendered = render(found)
    if options.check:
        sys.exit(0 if rendered == found else f"{page.name} is not up to date; run {command}")
    page.write_text(rendered, encoding="utf-8")
