"""Which releases are tried: both ends of what pyproject.toml allows of the libraries that decide an artifact."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[2]
PACKAGES = ("torch", "onnxruntime", "onnx", "numpy", "transformers")

End = Literal["oldest", "newest"]
COMPANIONS: Mapping[tuple[str, End], tuple[str, ...]] = {
    # Compiled for NumPy 1, which its metadata does not say.
    ("onnxruntime", "oldest"): ("numpy<2",),
}
"""What else must be old, with the reason."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One environment: a package at one end of its range, the others as pip chooses them."""

    package: str
    end: End
    requirements: tuple[str, ...]

    @property
    def name(self) -> str:
        """A name for the environment's folder."""
        return f"{self.package}-{self.end}"


def plan(pyproject: Path = ROOT / "pyproject.toml", constraints: Path = ROOT / "constraints.txt") -> tuple[Trial, ...]:
    """The trials, in the order of `PACKAGES`.

    torch is as constraints.txt has it where it is not what is tried: it is large, and one build serves all.
    """
    stated = requirements(pyproject)
    torch = next(line for line in constraints.read_text("utf-8").splitlines() if line.startswith("torch=="))
    trials = []
    for package in PACKAGES:
        for end in ("oldest", "newest"):
            wanted = f"{package}=={lower(stated[package])}" if end == "oldest" else f"{package}{stated[package]}"
            beside = COMPANIONS.get((package, end), ())
            trials.append(Trial(package, end, (wanted, *beside, *(() if package == "torch" else (torch,)))))
    return tuple(trials)


def requirements(pyproject: Path = ROOT / "pyproject.toml") -> dict[str, str]:
    """Package to what is demanded of its version, `[hf]` included: `onnx>=1.17` gives `{"onnx": ">=1.17"}`."""
    project = tomllib.loads(pyproject.read_text("utf-8"))["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["hf"]]
    found = (re.fullmatch(r"([\w-]+)(.*)", line) for line in lines)
    return {match[1]: match[2] for match in found if match}


def lower(bounds: str) -> str:
    """The version behind `>=`."""
    return next(bound.removeprefix(">=") for bound in bounds.split(",") if bound.startswith(">="))
