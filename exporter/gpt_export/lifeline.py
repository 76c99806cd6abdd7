"""Child processes that end with whoever started them, though that one was killed and could not say so.

The child holds one end of a pipe as its standard input, the parent the other, which the system closes for it. Unlike
`prctl(PR_SET_PDEATHSIG)` this is there on every system, and does not fire when the thread ends that started the child.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ORPHANED = 1
"""Exit code of a child whose parent is gone; nobody is there to read it."""


@contextmanager
def lifeline(line: str) -> Iterator[int]:
    """A descriptor for a child's standard input, from which it reads `line` and then nothing until this ends.

    Args:
        line: without a line end; shorter than a pipe holds, 4 kB everywhere and 64 kB on Linux.
    """
    reading, writing = os.pipe()
    try:
        os.write(writing, f"{line}\n".encode())
        yield reading
    finally:
        os.close(reading)
        os.close(writing)


def end_with_parent(descriptor: int = 0) -> None:
    """Ends this process as soon as the other end of `descriptor` is closed, whatever it is doing then."""

    def watch() -> None:
        while os.read(descriptor, 4096):
            pass
        os._exit(ORPHANED)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
