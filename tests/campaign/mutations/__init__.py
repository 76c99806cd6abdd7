"""One table a kind of file: name of an operation to a function that changes the files of a folder in place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Op = Callable[[Path, float, float], None]
"""Folder, where, what; the numbers in [0, 1). Raises IndexError or KeyError where there is nothing to change."""
