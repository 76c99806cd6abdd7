"""What the processes that tests start make of Ctrl-C."""

from __future__ import annotations

import signal


def let_children_be_interrupted() -> None:
    """Where SIGINT is ignored, as under nohup and in some CI systems, a handler that does nothing in its place.

    An ignored signal stays ignored in every child, a handled one falls back to the default: children can be interrupted
    then, and this process goes on as whoever started it wished.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
