"""An interval for a mean loss from resampling, in memory that does not grow with the sample.

Each replicate counts each unit a Poisson(1) number of times, which for many units is drawing as many with replacement
(Chamandy et al., "Estimating uncertainty for massive data streams", 2012). The numbers are drawn from the unit's own
place, so that they are the same in whatever order and by whomever the units are scored.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

REPLICATES = 1000
SEED = 20_120_901
LOW, HIGH = 2.5, 97.5
LEAST_UNITS = 5
"""An interval from fewer says nothing."""

Floats = NDArray[np.float64]


class Replicates:
    """Counts and losses of every replicate so far."""

    def __init__(self) -> None:
        self.count, self.loss = np.zeros(REPLICATES), np.zeros(REPLICATES)
        self.units = 0

    def add(self, place: tuple[int, ...], counts: Floats, losses: Floats) -> None:
        """Adds units, whose tokens and summed losses are given; `place` is that of the first."""
        weights = np.random.default_rng([SEED, *place]).poisson(1.0, (REPLICATES, len(counts))).astype(np.float64)
        self.count += (weights * counts).sum(axis=1)
        self.loss += (weights * losses).sum(axis=1)
        self.units += len(counts)

    def merge(self, other: Replicates) -> None:
        """Adds the units of another."""
        self.count += other.count
        self.loss += other.loss
        self.units += other.units

    def perplexity(self) -> tuple[float, float] | None:
        """The interval that holds 95 % of the replicates' perplexities, None for too few units."""
        drawn = self.count > 0
        if self.units < LEAST_UNITS or not drawn.any():
            return None
        low, high = np.percentile(self.loss[drawn] / self.count[drawn], [LOW, HIGH])
        return math.exp(min(low, 700.0)), math.exp(min(high, 700.0))
