"""A sum of floats without rounding until it is asked for: the same whatever the order. Its size does not grow."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

_UNIT = 1 << 1074
"""Every float64 is a whole multiple of 1 / 2**1074."""


class ExactSum:
    """A sum as a whole number of `1 / _UNIT`: what `math.fsum` gives, for numbers that come one at a time."""

    def __init__(self, values: Iterable[float] = ()) -> None:
        self._units = 0
        for value in values:
            self.add(value)

    def add(self, value: float) -> None:
        """Adds a finite number."""
        numerator, denominator = value.as_integer_ratio()
        self._units += numerator * (_UNIT // denominator)

    def __float__(self) -> float:
        return float(Fraction(self._units, _UNIT))
