"""What of this machine and environment matters to gpt-export; imports nothing of what it looks for."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gpt_export.artifact.machine import available_cores, processor
from gpt_export.errors import ServeError
from gpt_export.requirements import missing_requirements
from gpt_export.serving.packages import find_packages
from gpt_export.version import __version__

PACKAGES = (
    *("torch", "onnxruntime", "onnx", "onnx-ir", "onnxscript", "numpy", "safetensors", "tokenizers", "tiktoken"),
    *("transformers", "click", "rich", "jinja2"),
)
SPEEDS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "AVX2": (("avx2",), "without it everything is slow"),
    "AVX-512": (("avx512f",), "float32 and int4 are faster with it"),
    "VNNI": (("avx512_vnni", "avx_vnni"), "int8 is fast with it, and slower and exact by a detour without"),
    "AMX": (("amx_int8", "amx_bf16"), "int8 on long prompts is faster with it"),
    "dot product": (("asimddp",), "int8 and int4 on ARM are faster with it"),
    "I8MM": (("i8mm",), "int8 and int4 on ARM are faster with it"),
}
"""By name, the flags of Linux that say so, and what it decides."""
X86, ARM = ("AVX2", "AVX-512", "VNNI", "AMX"), ("dot product", "I8MM")


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether something is there, and what to do if not."""

    what: str
    there: bool
    says: str
    needed: bool = False
    """Whether gpt-export itself asks for it."""


def diagnose() -> dict[str, Any]:
    """JSON values: `versions`, `machine`, `features` of the processor, and `commands` with what each lacks."""
    return {
        "versions": {"gpt-export": __version__, "python": platform.python_version()} | dict(_versions()),
        "machine": _machine(),
        "features": {name: there for name, there, _ in features()},
        "commands": {finding.what: {"ready": finding.there, "says": finding.says} for finding in commands()},
    }


def _versions() -> Iterator[tuple[str, str | None]]:
    for name in PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, None


def _machine() -> dict[str, Any]:
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": processor(),
        "cores": available_cores(),
        "memory_gb": _memory_gb(),
        "free_disk_gb": round(shutil.disk_usage(Path.cwd()).free / 1e9, 1),
    }


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None


def features(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[tuple[str, bool | None, str]]:
    """By name, whether the processor has what decides speed, and what that is; None where it cannot be asked."""
    arm = platform.machine().lower() in ("aarch64", "arm64")
    try:
        flags = set(re.findall(r"\w+", cpuinfo.read_text(encoding="utf-8", errors="replace")))
    except OSError:
        flags = set()
    return [
        (name, None if not flags else any(flag in flags for flag in SPEEDS[name][0]), SPEEDS[name][1])
        for name in (ARM if arm else X86)
    ]


def commands() -> list[Finding]:
    """What each group of commands needs, and whether it is there."""
    missing = missing_requirements()
    install = f"python -m pip install {' '.join(missing)}"
    torch = find_spec("torch") is not None
    hf = find_spec("transformers") is not None
    return [
        Finding("onnx, torchscript, quantize, validate", torch and not missing, install, needed=True),
        Finding("generate, inspect, lint, bench, package", not _absent(missing), install, needed=True),
        Finding("checkpoints of other families", hf, "python -m pip install transformers"),
        _page(),
    ]


def _absent(missing: tuple[str, ...]) -> list[str]:
    """Of what is missing, what is needed to run a file."""
    names = ("numpy", "onnxruntime", "onnx", "rich", "tokenizers", "tiktoken")
    return [line for line in missing if re.split(r"[^\w-]", line)[0] in names]


def _page() -> Finding:
    try:
        find_packages()
    except ServeError as error:
        return Finding("serve", False, str(error).partition("run: ")[2])
    return Finding("serve", True, "")
