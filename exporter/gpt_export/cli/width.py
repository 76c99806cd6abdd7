"""How wide what a command tells may be: one rule for every command."""

from __future__ import annotations

import os
import shutil
import sys


def columns() -> int | None:
    """The columns of `COLUMNS`, else of the terminal; None in a pipe that says nothing, where lines stay whole."""
    said = os.environ.get("COLUMNS", "")
    if not sys.stdout.isatty() and not (said.isdecimal() and int(said)):
        return None
    return shutil.get_terminal_size().columns
