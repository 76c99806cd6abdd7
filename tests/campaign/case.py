"""One input: what it is made of, small enough to keep as a file."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOST_MUTATIONS = 4


@dataclass(frozen=True, slots=True)
class Mutation:
    """An operation of a kind's table; `at` says where in its subject, `what` with which value, both in [0, 1)."""

    op: str
    at: float
    what: float


@dataclass(frozen=True, slots=True)
class Case:
    """Mutations of a kind's seed, and which of the kind's commands reads the result."""

    kind: str
    action: int
    mutations: tuple[Mutation, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        mutations = [[one.op, one.at, one.what] for one in self.mutations]
        return {"action": self.action, "kind": self.kind, "mutations": mutations}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Case:
        """What `to_dict` gave."""
        return cls(values["kind"], values["action"], tuple(Mutation(*one) for one in values["mutations"]))

    @classmethod
    def read(cls, path: Path) -> Case:
        """A case of the folder `cases`."""
        return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))


def draw(kind: str, ops: list[str], actions: int, seed: int, number: int) -> Case:
    """The case of this number: the same for the same arguments, everywhere."""
    rng = random.Random(f"{seed}/{kind}/{number}")
    count = rng.randint(1, MOST_MUTATIONS)
    mutations = tuple(Mutation(rng.choice(ops), rng.random(), rng.random()) for _ in range(count))
    return Case(kind, rng.randrange(actions), mutations)


def pick(items: Any, share: float) -> Any:
    """The element of a sequence that stands at this share of it.

    Raises:
        IndexError: it is empty, so there is nothing to mutate.
    """
    return items[int(share * len(items))]
