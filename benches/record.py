"""Results as sorted JSON files, and the machine that they were measured on."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("numpy", "onnx", "onnx-ir", "onnxruntime", "torch")


def write_record(name: str, values: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Writes `values` with the machine's description to `<folder>/<name>.json` and returns that path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    text = json.dumps({"machine": machine()} | values, indent=1, sort_keys=True, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def read_record(name: str, folder: Path = RESULTS) -> dict[str, Any] | None:
    """What `write_record` wrote, None if it has not."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def machine(libraries: Iterable[str] = LIBRARIES) -> dict[str, Any]:
    """What of the machine decides the figures; neither its name nor its paths."""
    return {
        "cpu": _field(Path("/proc/cpuinfo"), "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "libraries": {name: version(name) for name in libraries},
        "memory_gb": round(int((_field(Path("/proc/meminfo"), "MemTotal") or "0").split()[0]) * 1024 / 1e9),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
    }


def significant(value: float, digits: int = 4) -> float:
    """`value` to so many significant digits."""
    return float(f"{value:.{digits}g}")


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Median, least and greatest of repeated measurements."""
    return {
        "max": round(max(values), digits),
        "median": round(statistics.median(values), digits),
        "min": round(min(values), digits),
    }


def _field(path: Path, name: str) -> str | None:
    for line in path.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None
