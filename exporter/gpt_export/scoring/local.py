"""Worker processes of this machine, each an interpreter of its own that talks through a socket.

They are started with `subprocess` and not forked: onnxruntime's threads do not survive a fork, and a script that calls
this library needs no `if __name__ == "__main__"`.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Hashable, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, Any

from gpt_export.errors import EngineError
from gpt_export.scoring.dispatch import Event
from gpt_export.scoring.piece import Setup

_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from gpt_export.scoring.local_worker import serve; serve(int(sys.argv[2]))"
)
MAX_FALSE_STARTS = 3
"""So many workers in a row that die before they are ready end the run."""


class _Process:
    """One worker, and what is known of it."""

    def __init__(self, setup: bytes, threads: int) -> None:
        ours, theirs = socket.socketpair()
        self.messages: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        arguments = [sys.executable, "-c", _BOOT, json.dumps([path or str(Path.cwd()) for path in sys.path])]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        with theirs:
            self.process = subprocess.Popen(
                [*arguments, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.PIPE,  # nothing is written: see `lifeline`
                stdout=self.messages,
                stderr=self.messages,
                env=environment,
            )
        self.connection = Connection(ours.detach())
        self.ready = self.busy = False
        self.connection.send_bytes(setup)

    def death(self) -> str:
        """How it ended, in words."""
        code = self.process.wait()
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        self.messages.seek(0)
        lines = self.messages.read().decode("utf-8", "replace").strip().splitlines()
        return f"exit code {code}" + (f", {lines[-1]}" if lines else "")

    def end(self) -> None:
        self.connection.close()
        assert self.process.stdin is not None
        self.process.stdin.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.messages.close()


class LocalCrew:
    """So many processes, kept at that number. See `Crew`."""

    def __init__(self, setup: Setup, workers: int, threads: int) -> None:
        self._setup, self._threads = pickle.dumps(setup), threads
        self._false_starts = 0
        self._processes: dict[int, _Process] = {}
        for _ in range(workers):
            self._start()

    def idle(self) -> list[Hashable]:
        """See `Crew.idle`."""
        return [pid for pid, one in self._processes.items() if one.ready and not one.busy]

    def pids(self) -> list[int]:
        """The ids of the processes that are ready for work, or at it."""
        return [pid for pid, one in self._processes.items() if one.ready]

    def give(self, worker: Hashable, rows: Sequence[Any]) -> None:
        """See `Crew.give`."""
        one = self._processes[worker]  # type: ignore[index]
        one.busy = True
        try:
            one.connection.send(rows)
        except OSError:  # dead: `wait` sees it
            return

    def wait(self) -> list[Event]:
        """See `Crew.wait`."""
        by_connection: dict[Any, int] = {one.connection: pid for pid, one in self._processes.items()}
        events = []
        for connection in wait(list(by_connection)):
            pid = by_connection[connection]
            event = self._heard(pid, self._processes[pid])
            if event:
                events.append(event)
        return events

    def close(self) -> None:
        """See `Crew.close`."""
        for one in self._processes.values():
            one.end()
        self._processes.clear()

    def _start(self) -> None:
        one = _Process(self._setup, self._threads)
        self._processes[one.process.pid] = one

    def _heard(self, pid: int, one: _Process) -> Event | None:
        try:
            kind, value = one.connection.recv()
        except (EOFError, OSError):
            return self._replace(pid, one)
        if kind == "ready":
            one.ready, self._false_starts = True, 0
            return None
        if kind == "refused":
            raise value
        one.busy = False
        return Event(pid, results=value) if kind == "done" else Event(pid, fault=value)

    def _replace(self, pid: int, one: _Process) -> Event:
        how = one.death()
        one.end()
        del self._processes[pid]
        if not one.ready:
            self._false_starts += 1
            if self._false_starts >= MAX_FALSE_STARTS:
                raise EngineError(
                    f"{self._false_starts} worker processes ended before they were ready, the last one: {how}; "
                    "see whether one fits into memory with --workers 1"
                )
        self._start()
        return Event(pid, fault=how, dead=True)
