"""What a package holds: by path, its bytes or the artifact's file that they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FromArtifact:
    """The file at `path` of the artifact, as it is."""

    path: str


Plan = Mapping[str, bytes | FromArtifact]
"""Paths have slashes and lead nowhere out of the package."""
