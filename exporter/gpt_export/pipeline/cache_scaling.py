"""The texts that a cache of 8 bits is scaled by: the cases that will judge it, and the calibration text."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from gpt_export.gate.case import Case
from gpt_export.pipeline.calibration_text import calibration_windows
from gpt_export.sources.source import Source

CALIBRATION_TOKENS = 8192
"""At most so many are read: the largest of ever more tokens grows by ever less."""


def scaling_texts(source: Source, cases: Iterable[Case], calibration: str | None) -> list[NDArray[np.int64]]:
    """Token ids, int64 (rows, length), without padding and without rows that begin another one.

    Raises:
        ConfigError: as in `calibration_windows`.
    """
    rows = sorted((row for case in cases for row in case.rows() if row.size), key=lambda row: row.size, reverse=True)
    kept: dict[bytes, NDArray[np.int64]] = {}
    for row in rows:
        if not any(other.startswith(row.tobytes()) for other in kept):
            kept[row.tobytes()] = row
    texts = list(kept.values())
    if calibration is not None:
        windows = calibration_windows(source, calibration)
        texts += [row[None] for row in windows[: max(1, CALIBRATION_TOKENS // windows.shape[1])]]
    return texts
