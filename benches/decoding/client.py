"""A worker from the other side: started, asked, ended."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from benches.decoding.engine import Generated, Rows

ROOT = Path(__file__).parent.parent.parent


class WorkerError(RuntimeError):
    """A worker that ended or answered with an error; says which and its last words."""


class Worker:
    """A living process with one engine in it; `load_s` is how long the engine took to load."""

    def __init__(self, name: str, command: Sequence[str | Path], threads: int) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        numbers = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
        self._process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT,
            env=os.environ | numbers | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONPATH": str(ROOT)},
        )
        self.load_s = float(self._answer()["load_s"])

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def generate(self, rows: Rows, new: int) -> Generated:
        """See `Engine.generate`.

        Raises:
            WorkerError: the worker ended or failed.
        """
        found = self._ask({"do": "generate", "ids": rows.tolist(), "new": new})
        return Generated(found["ids"], found["first_s"], found["rest_s"])

    def score(self, rows: Rows) -> list[float]:
        """See `Engine.score`.

        Raises:
            WorkerError: the worker ended or failed.
        """
        nats: list[float] = self._ask({"do": "score", "ids": rows.tolist()})["nats"]
        return nats

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process; kills it if it does not end when its stdin does."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise WorkerError(f"{self.name} ended: {self._last_words()}") from error
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(f"{self.name} ended: {self._last_words()}")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise WorkerError(f"{self.name} failed: {found['error']}")
        return found

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = [line for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else "it said nothing"
