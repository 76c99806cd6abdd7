"""What an engine promises. Imports nothing but the standard library and NumPy, for foreign environments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Generated:
    """New ids (batch, new), and seconds from the call to the first of them and from the first to the last."""

    ids: list[list[int]]
    first_s: float
    rest_s: float


class Engine(Protocol):
    """One model in one library, with a number of threads."""

    def generate(self, rows: Rows, new: int) -> Generated:
        """Greedy continuation of ids (batch, sequence) by `new` ids, none of which stops it."""
        ...

    def score(self, rows: Rows) -> list[float]:
        """Of each row, the summed negative log-likelihood in nats of its ids but the first."""
        ...


Step = Callable[[Rows], NDArray[np.float32]]
"""New ids (batch, n) to the logits of the last (batch, vocabulary); what was fed before is remembered."""


def generate_by_steps(feed: Step, rows: Rows, new: int, clock: Callable[[], float]) -> Generated:
    """Greedy generation with a library that is fed ids and gives logits."""
    started = clock()
    chosen = feed(rows).argmax(axis=-1)
    first = clock()
    ids = [chosen]
    for _ in range(new - 1):
        chosen = feed(chosen[:, None]).argmax(axis=-1)
        ids.append(chosen)
    return Generated(np.stack(ids, axis=1).tolist(), first - started, clock() - first)


def negative_log_likelihood(logits: NDArray[np.float32], ids: Rows) -> float:
    """Nats of ids (n) from the logits (n - 1 or n, vocabulary) of the positions before them."""
    found = logits[: len(ids) - 1].astype(np.float64)
    highest = found.max(axis=-1, keepdims=True)
    normaliser = highest[:, 0] + np.log(np.exp(found - highest).sum(axis=-1))
    return float((normaliser - found[np.arange(len(found)), ids[1:]]).sum())
