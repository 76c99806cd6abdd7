"""Standard output that says who it is when it takes no more: what the system raises names no file."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator


class _Output(io.TextIOWrapper):
    """Standard output as text.

    What fails is named here and not where bytes are written: there an interrupt between the system's writing and the
    buffer's learning of it would have the same bytes written again.
    """

    def write(self, text: str, /) -> int:
        with _named():
            return super().write(text)

    def flush(self) -> None:
        with _named():
            super().flush()


@contextlib.contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        error.filename = "standard output"
        raise


def name_output() -> None:
    """Puts such an output in the place of Python's; it replaces characters that the terminal's encoding lacks."""
    plain = sys.stdout
    if not isinstance(plain, io.TextIOWrapper):
        return
    try:
        raw = io.FileIO(plain.fileno(), "w", closefd=False)
    except (OSError, ValueError):  # a stream that is not the system's
        plain.reconfigure(errors="replace")
        return
    plain.flush()
    sys.stdout = _Output(
        io.BufferedWriter(raw),
        encoding=plain.encoding,
        errors="replace",
        line_buffering=plain.line_buffering,
        write_through=plain.write_through,
    )
