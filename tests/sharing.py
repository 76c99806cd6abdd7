"""What several tests look at, made once in a run of the tests, however many processes share them out."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

WORKER = "PYTEST_XDIST_WORKER"
WORKERS = "PYTEST_XDIST_WORKER_COUNT"


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder `name` of this run, which `make` fills for the first process that asks; the others wait for it."""
    root = tmp_path_factory.getbasetemp()
    shared = (root.parent if WORKER in os.environ else root) / "shared"
    shared.mkdir(exist_ok=True)
    folder, made = shared / name, shared / f"{name}.made"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a process that failed half-way
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


def threads_of_this_process() -> int:
    """Two, or this process's share of the cores where there are several."""
    cores = os.cpu_count() or 1
    return max(1, min(2, cores // int(os.environ.get(WORKERS, "1"))))
