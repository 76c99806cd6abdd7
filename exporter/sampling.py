"""The next token of each row from its logits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exporter.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is chosen.

    Temperature 0 takes the likeliest token (the first of equals). Above it, logits are divided by the temperature,
    cut to the `top_k` likeliest, then to the smallest set that holds `top_p` of the probability (nucleus sampling,
    Holtzman et al., arXiv:1904.09751), and drawn from.

    Raises:
        InputError: a value is out of range.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise InputError(f"temperature {self.temperature} is out of range; pass 0 for greedy, or a positive number")
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k {self.top_k} is out of range; pass at least 1, or leave it out")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"top_p {self.top_p} is out of range; pass a number above 0 and up to 1, or leave it out")

    def choose(self, logits: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.int64]:
        """One token id a row, int64 (batch,), of logits (batch, vocabulary)."""
        if self.temperature == 0:
            likeliest: NDArray[np.int64] = logits.argmax(axis=-1).astype(np.int64)
            return likeliest
        return np.array([self._draw(row, rng) for row in logits], dtype=np.int64)

    def _draw(self, row: NDArray[np.float32], rng: np.random.Generator) -> int:
        order = np.argsort(-row, kind="stable")[: self.top_k]
        scaled = (row[order].astype(np.float64) - float(row[order[0]])) / self.temperature
        probabilities = np.exp(scaled)
        probabilities /= probabilities.sum()
        if self.top_p is not None:
            kept = int(np.searchsorted(np.cumsum(probabilities), self.top_p)) + 1
            order, probabilities = order[:kept], probabilities[:kept] / probabilities[:kept].sum()
        return int(order[rng.choice(len(order), p=probabilities)])
