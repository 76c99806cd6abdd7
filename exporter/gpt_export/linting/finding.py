"""One thing that was seen: what, where, how bad, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

LocationKind = Literal["file", "tensor", "node"]


class Severity(StrEnum):
    """How bad; the values are also SARIF's levels."""

    ERROR = "error"
    """It does not load, gives wrong results, or a promised consumer rejects it."""
    WARNING = "warning"
    """It works, and costs memory, time or somebody's afternoon."""
    NOTE = "note"
    """A fact to know."""

    @property
    def rank(self) -> int:
        """0 for the worst, for sorting."""
        return list(Severity).index(self)


@dataclass(frozen=True, slots=True)
class Location:
    """The part of a file that a finding is about; `name` is empty for the file itself."""

    kind: LocationKind
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" if self.name else self.kind


FILE = Location("file")


def tensor(name: str) -> Location:
    """The location of an initializer, an input or an output."""
    return Location("tensor", name)


def node(name: str) -> Location:
    """The location of a node."""
    return Location("node", name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A broken rule. `message` says what was found and what is allowed, `remedy` what to do."""

    code: str
    severity: Severity
    location: Location
    message: str
    remedy: str
    consumer: str | None = None
    """Whose contract it is, None if it is everyone's."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values of every field."""
        return {
            "code": self.code,
            "severity": str(self.severity),
            "location": {"kind": self.location.kind, "name": self.location.name},
            "message": self.message,
            "remedy": self.remedy,
            "consumer": self.consumer,
        }
