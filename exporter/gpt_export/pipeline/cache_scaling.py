"""The texts that a cache of 8 bits is scaled by: those of the default cases, as many of other random ids, calibration.

They are the same whatever the gate is asked to look at, and more than it looks at.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from gpt_export.gate.cases import choose_cases
from gpt_export.gate.settings import GateSettings
from gpt_export.pipeline.calibration_text import calibration_windows
from gpt_export.sources.source import Source

_SEED = 2**32
"""Of the random ids that the gate does not look at."""
LEAST_TOKENS = 2048
"""Fewer say too little of what a channel may hold; random ids make up for what is missing."""
MOST_ROWS = 256
CALIBRATION_TOKENS = 8192
"""At most so many are read: the largest of ever more tokens grows by ever less."""


def scaling_texts(source: Source, calibration: str | None) -> list[NDArray[np.int64]]:
    """Token ids, int64 (rows, length), without padding and without rows that begin another one.

    Raises:
        ConfigError: as in `calibration_windows`.
    """
    looked_at = [choose_cases(source, GateSettings(seed=seed)) for seed in (GateSettings().seed, _SEED)]
    texts = unlike(row for cases in looked_at for case in cases for row in case.rows())
    if (missing := LEAST_TOKENS - sum(row.size for row in texts)) > 0:
        rows = min(missing // source.context_length + 1, MOST_ROWS)
        texts.append(np.random.default_rng(_SEED).integers(0, source.vocab_size, (rows, source.context_length)))
    if calibration is not None:
        windows = calibration_windows(source, calibration)
        texts += [row[None] for row in windows[: max(1, CALIBRATION_TOKENS // windows.shape[1])]]
    return texts


def unlike(rows: Iterable[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    """The rows, each (1, length), without those that are empty or begin another one; the longest first."""
    kept: dict[bytes, NDArray[np.int64]] = {}
    for row in sorted((row for row in rows if row.size), key=lambda row: row.size, reverse=True):
        if not any(other.startswith(row.tobytes()) for other in kept):
            kept[row.tobytes()] = row
    return list(kept.values())
