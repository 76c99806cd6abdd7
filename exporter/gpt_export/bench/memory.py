"""Memory of this process, from /proc; Linux only, elsewhere nothing is told.

RSS counts every resident page, those of mapped files too, which the system can take back. Anonymous memory is what the
process holds and nothing could give back.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

INTERVAL_S = 0.005
_FIELDS = {"VmHWM": "peak_rss_mb", "RssAnon": "anon_mb"}


def now(status: Path = Path("/proc/self/status")) -> dict[str, float] | None:
    """`peak_rss_mb` so far and `anon_mb` at this moment, in 10^6 bytes; None where there is no such file."""
    found = {}
    with contextlib.suppress(OSError):
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name in _FIELDS:
                found[_FIELDS[name]] = int(value.split()[0]) * 1024 / 1e6
    return found if len(found) == len(_FIELDS) else None


@contextlib.contextmanager
def peak() -> Iterator[dict[str, float]]:
    """A dictionary that has `peak_rss_mb` and `peak_anon_mb` of the body when it ends; it stays empty elsewhere."""
    result: dict[str, float] = {}
    ended = threading.Event()
    samples = [now()]

    def watch() -> None:
        while not ended.wait(INTERVAL_S):
            samples.append(now())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield result
    finally:
        ended.set()
        watcher.join()
        samples.append(now())
        if known := [sample for sample in samples if sample]:
            result["peak_rss_mb"] = round(known[-1]["peak_rss_mb"], 1)
            result["peak_anon_mb"] = round(max(sample["anon_mb"] for sample in known), 1)
