"""Counts of a campaign, kept after every round, so that a run that was ended goes on where it was."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.campaign.oracle import Outcome


@dataclass(slots=True)
class Tally:
    """Of one kind."""

    tried: int = 0
    bad: int = 0
    refused: int = 0
    seconds: float = 0.0
    slowest_seconds: float = 0.0
    peak_mb: float = 0.0
    reasons: dict[str, int] = field(default_factory=dict)

    def add(self, outcome: Outcome) -> None:
        """Counts one more."""
        self.tried += 1
        self.refused += bool(outcome.code)
        self.seconds += outcome.seconds
        self.slowest_seconds = max(self.slowest_seconds, outcome.seconds)
        self.peak_mb = max(self.peak_mb, outcome.peak_mb)
        if outcome.bad:
            self.bad += 1
            reason = outcome.bad.split(" /")[0]
            self.reasons[reason] = self.reasons.get(reason, 0) + 1


class Record:
    """The tallies of a campaign by kind, in a file."""

    def __init__(self, path: Path, seed: int, *, resume: bool) -> None:
        self._path, self.seed = path, seed
        self.tallies: dict[str, Tally] = {}
        if resume and path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["seed"] == seed:
                self.tallies = {name: Tally(**values) for name, values in found["kinds"].items()}

    def __getitem__(self, kind: str) -> Tally:
        return self.tallies.setdefault(kind, Tally())

    def to_dict(self) -> dict[str, Any]:
        """JSON values, figures rounded to what they say."""
        kinds = {name: asdict(tally) for name, tally in sorted(self.tallies.items())}
        for values in kinds.values():
            values |= {name: round(values[name], 1) for name in ("seconds", "slowest_seconds", "peak_mb")}
        return {"kinds": kinds, "seed": self.seed}

    def save(self) -> None:
        """Writes the file in one step."""
        draft = self._path.with_suffix(".draft")
        draft.write_text(json.dumps(self.to_dict(), indent=1, sort_keys=True), encoding="utf-8")
        draft.replace(self._path)
