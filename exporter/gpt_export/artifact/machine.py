"""What of the machine decides how numbers are rounded and how fast; neither its name nor its paths."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The model name of the processor, or the name of its architecture where the system does not tell of one."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_words(found: Mapping[str, Any]) -> str:
    """A report's `measured_on` for a person, such as `AMD EPYC, AVX2, 2 threads on 2 cores`."""
    threads, cores = (
        f"{found[key]} {key if found[key] != 1 else key.removesuffix('s')}" for key in ("threads", "cores")
    )
    return f"{found['processor']}, {found['instruction_set']}, {threads} on {cores}"
