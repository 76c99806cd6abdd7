"""A bad input made small: mutations are left out as long as what is bad stays (delta debugging, Zeller 1999)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.campaign.case import Case
from tests.campaign.oracle import Outcome

Try = Callable[[Case], Outcome]


def shrunk(case: Case, bad: str, outcome_of: Try) -> Case:
    """The case with none of the mutations that it is bad without.

    Mutations are few, so each is left out alone, again and again until none can be.
    """
    found = True
    while found and len(case.mutations) > 1:
        found = False
        for i in range(len(case.mutations)):
            smaller = replace(case, mutations=case.mutations[:i] + case.mutations[i + 1 :])
            if outcome_of(smaller).bad == bad:
                case, found = smaller, True
                break
    return case


def fault_name(case: Case, outcome: Outcome) -> str:
    """One name a fault: kind, what is bad, and the words of the message without names and numbers of this input."""
    words = re.sub(r"\S*/\S*|'[^']*'|\"[^\"]*\"|[^a-zA-Z ]", " ", outcome.told)
    heard = [word.lower() for word in words.split() if word not in ("Error", "unexpected", "run", "again", "with")][:6]
    reason = re.sub(r"[^a-z]+", "-", outcome.bad.split(" /")[0].lower())
    return "-".join([case.kind, reason, *heard]).strip("-")[:90]


def keep(case: Case, name: str, outcome: Outcome, folder: Path) -> Path:
    """Writes the case to `<folder>/<name>.json` with what it came to, and returns that path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    found = {"bad": outcome.bad.split(" /")[0], "told": re.sub(r"/\S+", "...", outcome.told)}
    path.write_text(json.dumps(case.to_dict() | {"found": found}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return path
