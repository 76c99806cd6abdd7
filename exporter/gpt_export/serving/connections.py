"""How many connections a server holds and for how long: bounds that no client can talk its way around.

An idle limit alone is none: who sends a byte now and then is never idle. Every phase of a connection has its end here,
however much is heard in between.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass

MAX_CONNECTIONS = 64
"""A browser opens six; a page's tabs, reloads and workers stay far below."""
IDLE_S = 60.0
"""How long a connection may wait for its next request."""
REQUEST_S = 10.0
"""How long the line and the headers of a request may take, from their first byte to their last."""
ANSWER_S = 30.0
BYTES_A_SECOND = 1_000_000
"""An answer may take `ANSWER_S` and the time of its bytes at this rate; a loopback is a thousand times as fast."""


@dataclass(slots=True)
class _Phase:
    """What a connection is doing, and when it must have done it (monotonic seconds)."""

    due: float
    waits: bool


class Connections:
    """The open connections of one server. Safe to use from all its threads."""

    def __init__(self, most: int = MAX_CONNECTIONS) -> None:
        self._most = most
        self._phases: dict[socket.socket, _Phase] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._phases)

    def admit(self, connection: socket.socket) -> bool:
        """Whether there is room for one more; the one that has waited longest for a request makes room for it."""
        with self._lock:
            if len(self._phases) >= self._most and not self._end_idlest():
                return False
            self._phases[connection] = _Phase(time.monotonic() + IDLE_S, waits=True)
            return True

    def waits(self, connection: socket.socket) -> None:
        """It has no request."""
        self._enter(connection, IDLE_S, waits=True)

    def asks(self, connection: socket.socket) -> None:
        """The first byte of a request has come."""
        self._enter(connection, REQUEST_S)

    def answers(self, connection: socket.socket, size_bytes: int) -> None:
        """So many bytes are going to be sent."""
        self._enter(connection, ANSWER_S + size_bytes / BYTES_A_SECOND)

    def forget(self, connection: socket.socket) -> None:
        """It is about to be closed."""
        with self._lock:
            self._phases.pop(connection, None)

    def end_overdue(self) -> None:
        """Ends what has taken too long: its thread finds the connection closed."""
        now = time.monotonic()
        with self._lock:
            for connection in [one for one, phase in self._phases.items() if phase.due < now]:
                self._end(connection)

    def _enter(self, connection: socket.socket, seconds: float, *, waits: bool = False) -> None:
        with self._lock:
            if connection in self._phases:  # else it has been ended
                self._phases[connection] = _Phase(time.monotonic() + seconds, waits)

    def _end_idlest(self) -> bool:
        waiting = [(phase.due, one) for one, phase in self._phases.items() if phase.waits]
        if not waiting:
            return False
        self._end(min(waiting, key=lambda entry: entry[0])[1])
        return True

    def _end(self, connection: socket.socket) -> None:
        del self._phases[connection]
        with contextlib.suppress(OSError):  # the client was faster
            connection.shutdown(socket.SHUT_RDWR)
