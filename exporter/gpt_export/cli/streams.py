"""Standard streams that whoever started the command has closed (`>&-`)."""

from __future__ import annotations

import os
import sys


def occupy_streams() -> None:
    """Opens the null device in place of each standard stream that is closed.

    Otherwise the next file that is opened would get its number, and what a library prints would be written into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:  # the lowest free one is taken, so this is another thread's doing
                os.dup2(opened, number, inheritable=True)
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115
