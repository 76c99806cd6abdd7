"""Standard output that says who it is when it takes no more: what the system raises names no file."""

from __future__ import annotations

import io
import sys
from typing import Any


class _Output(io.FileIO):
    """The descriptor of standard output."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = "standard output"
            raise


def name_output() -> None:
    """Puts such an output in the place of Python's; it replaces characters that the terminal's encoding lacks."""
    plain = sys.stdout
    if not isinstance(plain, io.TextIOWrapper):
        return
    try:
        raw = _Output(plain.fileno(), "w", closefd=False)
    except (OSError, ValueError):  # a stream that is not the system's
        plain.reconfigure(errors="replace")
        return
    plain.flush()
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=plain.encoding, errors="replace", line_buffering=plain.line_buffering,
        write_through=plain.write_through,
    )  # fmt: skip
