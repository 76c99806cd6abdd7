"""How many workers, with how many threads, and whether each keeps a copy of the weights of its own."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from gpt_export.artifact.reading import Artifact
from gpt_export.scoring.settings import EngineSettings

COPIES = 2
"""Of the weights, what a worker holds beside the mapped file: onnxruntime's rearranged one, and another while it is
made."""
SHARE = 4
"""Copies may take this part of the memory that is free."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def local_workers(settings: EngineSettings, weights_bytes: int, free_bytes: int | None) -> tuple[int, int, bool]:
    """Workers, threads of each, and whether they prepack.

    One thread a worker: two workers of one thread do more than one of two (docs/corpora.md). Where their copies of the
    weights would not fit, none has one, and all read the same mapped file.
    """
    there = cores()
    workers = settings.workers or max(1, there // (settings.threads or 1))
    threads = settings.threads or max(1, there // workers)
    return workers, threads, prepacks(settings, workers, weights_bytes, free_bytes)


def prepacks(settings: EngineSettings, workers: int, weights_bytes: int, free_bytes: int | None) -> bool:
    """Whether so many workers of one machine may each have a copy of the weights."""
    if settings.prepack is not None:
        return settings.prepack
    return free_bytes is None or workers * COPIES * weights_bytes <= free_bytes // SHARE


def weights_bytes(artifact: Artifact, variants: Iterable[str | None]) -> int:
    """Bytes of the variants' files."""
    total = 0
    for variant in variants:
        if variant is not None:
            path = artifact.manifest.variants[variant]["path"]
            total += sum(
                int(entry["size_bytes"]) for name, entry in artifact.manifest.files.items() if name.startswith(path)
            )
    return total


def free_memory() -> int | None:
    """Bytes that new processes can have, None where the system does not say."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"), re.M)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
