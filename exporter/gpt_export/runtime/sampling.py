"""The next token of each row from its logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpt_export.errors import InputError


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

    def choose(self, logits: NDArray[np.float32], rngs: Sequence[np.random.Generator]) -> NDArray[np.int64]:
        """One token id a row, int64 (batch,), of logits (batch, vocabulary); each row draws from its own generator."""
        if self.temperature == 0:
            likeliest: NDArray[np.int64] = logits.argmax(axis=-1).astype(np.int64)
            return likeliest
        return np.array([self._draw(row, rng) for row, rng in zip(logits, rngs, strict=True)], dtype=np.int64)

    def _draw(self, row: NDArray[np.float32], rng: np.random.Generator) -> int:
        ids = self._likeliest(row)
        probabilities = self._softmax(row[ids])
        if self.top_p is not None and self.top_p < 1:
            kept = int(np.searchsorted(np.cumsum(probabilities), self.top_p)) + 1
            ids, probabilities = ids[:kept], probabilities[:kept] / probabilities[:kept].sum()
        return int(ids[rng.choice(len(ids), p=probabilities)])

    def _likeliest(self, row: NDArray[np.float32]) -> NDArray[np.intp]:
        """The ids to draw from, the likeliest first; of equally likely ones the lower id. All, in order, if all may."""
        ids = np.arange(len(row))
        if self.top_k is not None and self.top_k < len(row):  # without sorting the whole vocabulary
            ids = np.flatnonzero(row >= np.partition(row, -self.top_k)[-self.top_k])
        elif self.top_p is None or self.top_p == 1:
            return ids
        return ids[np.argsort(-row[ids], kind="stable")][: self.top_k]

    def _softmax(self, row: NDArray[np.float32]) -> NDArray[np.float64]:
        with np.errstate(over="ignore"):  # a tiny temperature takes all but the likeliest to -inf, which is right
            powers = np.exp((row.astype(np.float64) - float(row.max())) / self.temperature)
        probabilities: NDArray[np.float64] = powers / powers.sum()
        return probabilities


def generators(seed: int | None, rows: int) -> list[np.random.Generator]:
    """A generator for each row; that of a row depends on the seed and its place, not on the number of rows."""
    return [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(rows)]
