"""Wall time and peak memory of a command and its children, read from /proc while it runs. Linux only.

RSS counts every resident page, those of mapped files too, which the system can drop. Anonymous memory (RssAnon) is
what the processes hold and nothing else could give back.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

INTERVAL_S = 0.005
_FIELDS = {"VmRSS": "rss", "RssAnon": "anon", "VmHWM": "peak_rss"}


@dataclass(frozen=True, slots=True)
class Sample:
    """Memory at one moment, in bytes; `at` is on the clock of `time.monotonic`, which all processes share."""

    at: float
    rss: int
    anon: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a command took. Memory is that of the process tree, in bytes."""

    wall_s: float
    peak_rss: int
    peak_anon: int
    exit_code: int
    stopped: bool
    """Whether it was killed because its memory went over the limit."""
    stdout: str
    stderr: str
    samples: list[Sample] = field(repr=False)


def memory_of(pid: int | str) -> dict[str, int]:
    """`rss`, `anon` and `peak_rss` of one process in bytes; zeros when it is gone."""
    found = dict.fromkeys(_FIELDS.values(), 0)
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name in _FIELDS:
                found[_FIELDS[name]] = int(value.split()[0]) * 1024
    return found


def run(
    command: Sequence[str | Path],
    *,
    environment: dict[str, str] | None = None,
    folder: Path | None = None,
    limit_bytes: int | None = None,
    interval_s: float = INTERVAL_S,
) -> Measured:
    """Runs `command` in a session of its own, kills it when it passes `limit_bytes` of RSS, and tells what it took.

    The peak of RSS is the larger of the sampled sum over the tree and what the system kept of the largest process.
    """
    samples: list[Sample] = []
    ended = threading.Event()
    over = threading.Event()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.monotonic()
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=folder,
            env=os.environ | (environment or {}),
            start_new_session=True,
        )

        def watch() -> None:
            members = [process.pid]
            for turn in range(2**62):
                if turn % 20 == 0:  # looking for children costs more than reading them
                    members = tree(process.pid)
                found = [memory_of(pid) for pid in members]
                samples.append(
                    Sample(time.monotonic(), sum(one["rss"] for one in found), sum(one["anon"] for one in found))
                )
                if limit_bytes and samples[-1].rss > limit_bytes and not over.is_set():
                    over.set()
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                if ended.wait(interval_s):
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            ended.set()
        wall_s = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        watcher.join()
        return Measured(
            wall_s=wall_s,
            peak_rss=max(usage.ru_maxrss * 1024, *(sample.rss for sample in samples)),
            peak_anon=max(sample.anon for sample in samples),
            exit_code=process.returncode,
            stopped=over.is_set(),
            stdout=_text(out),
            stderr=_text(err),
            samples=samples,
        )


def tree(root: int) -> list[int]:
    """The process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                after_name = (entry / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2]
                children.setdefault(int(after_name.split()[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def _text(file: object) -> str:
    file.seek(0)  # type: ignore[attr-defined]
    return str(file.read().decode(errors="replace"))  # type: ignore[attr-defined]
