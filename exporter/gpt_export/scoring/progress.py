"""How far a run is, for whoever shows it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Progress:
    """Tokens done, and what may be left of them."""

    tokens: int = 0
    """That were scored or generated in this run."""
    documents: int = 0
    failed: int = 0
    total_bytes: int | None = None
    """Of the input, where that is known."""
    before: int = 0
    """Tokens that an earlier run had done."""
    _planned: int = 0
    _read_bytes: int = 0
    _since: float = field(default_factory=time.monotonic)

    def planned(self, tokens: int, read_bytes: int) -> None:
        """Notes tokens that are waiting, and how much of the input is read."""
        self._planned += tokens
        self._read_bytes = read_bytes

    def done(self, tokens: int) -> None:
        """Notes tokens that are done."""
        self.tokens += tokens

    def skipped(self, tokens: int) -> None:
        """Notes tokens that were done before."""
        self.before += tokens

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / max(1e-9, time.monotonic() - self._since)

    @property
    def fraction(self) -> float | None:
        """Which part of all is done, None if nobody knows; from the tokens that the bytes so far have given."""
        if not self.total_bytes or not self._read_bytes or not self._planned:
            return None
        expected = self._planned * self.total_bytes / self._read_bytes
        return min(1.0, (self.tokens + self.before) / expected)

    @property
    def seconds_left(self) -> float | None:
        """How long the rest may take at this rate, None if nobody knows."""
        done = self.fraction
        if done is None or not self.tokens or not done:
            return None
        return (self.tokens + self.before) * (1 / done - 1) / self.rate


OnProgress = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """The `OnProgress` that shows nothing."""
