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
    cut to the `top_k` likeliest, to the smallest set that holds `top_p` of the probability (nucleus sampling, Holtzman
    et al., arXiv:1904.09751), to those at least `min_p` times as likely as the likeliest (arXiv:2407.01082), and drawn
    from. Before all that, the logits of tokens that the row has already are divided by `repetition_penalty` if
    positive, and multiplied by it if negative (Keskar et al., arXiv:1909.05858).

    Raises:
        InputError: a value is out of range, or cuts what nothing is drawn from.
    """

    temperature: float | None = None
    """None is 1 where a cut is given, and 0 otherwise."""
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        cuts = [name for name in ("top_k", "top_p", "min_p") if getattr(self, name) is not None]
        if self.temperature is not None and not 0 <= self.temperature < float("inf"):
            raise InputError(f"temperature {self.temperature} is out of range; pass 0 for greedy, or a positive number")
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k {self.top_k} is out of range; pass at least 1, or leave it out")
        for name in ("top_p", "min_p"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise InputError(f"{name} {value} is out of range; pass a number above 0 and up to 1, or leave it out")
        if not 0 < self.repetition_penalty < float("inf"):
            raise InputError(f"repetition_penalty {self.repetition_penalty} is out of range; pass a number above 0")
        if self.temperature == 0 and cuts:
            raise InputError(
                f"temperature 0 takes the likeliest token, so there is nothing for {' and '.join(cuts)} to draw from; "
                "leave one of the two out, or pass a positive temperature"
            )
        if self.temperature is None:
            object.__setattr__(self, "temperature", 1.0 if cuts else 0.0)

    def seen(self, ids: NDArray[np.int64], mask: NDArray[np.int64], vocab_size: int) -> NDArray[np.bool_] | None:
        """Which tokens each row has, bool (batch, vocabulary), padding aside; None where nobody asks."""
        if self.repetition_penalty == 1:
            return None
        seen = np.zeros((len(ids), vocab_size), dtype=np.bool_)
        for row, tokens, kept in zip(seen, ids, mask, strict=True):
            row[tokens[kept == 1]] = True
        return seen

    def choose(
        self,
        logits: NDArray[np.float32],
        rngs: Sequence[np.random.Generator],
        seen: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.int64]:
        """One token id a row, int64 (batch,), of logits (batch, vocabulary); each row draws from its own generator.

        Args:
            seen: the tokens that each row has already, see `seen`.

        Raises:
            InputError: the logits are no numbers.
        """
        if not np.isfinite(logits.max(axis=-1)).all():
            raise InputError(
                "the logits hold NaN or Inf, so no token is the likeliest; gpt-export validate says whether the "
                "artifact is its model"
            )
        if seen is not None:
            penalised = np.where(logits > 0, logits / self.repetition_penalty, logits * self.repetition_penalty)
            logits = np.where(seen[:, : logits.shape[1]], penalised, logits)
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
        if self.min_p is not None:
            likely = probabilities >= self.min_p * probabilities.max()
            ids, probabilities = ids[likely], probabilities[likely] / probabilities[likely].sum()
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
            powers = np.exp((row.astype(np.float64) - float(row.max())) / (self.temperature or 1.0))
        probabilities: NDArray[np.float64] = powers / powers.sum()
        return probabilities


def generators(seed: int | None, rows: int) -> list[np.random.Generator]:
    """A generator for each row; that of a row depends on the seed and its place, not on the number of rows."""
    return [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(rows)]
