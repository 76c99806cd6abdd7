"""The text that 4-bit rounding is calibrated on, as ids."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpt_export.errors import ConfigError
from gpt_export.sources.source import Source

MOST_TOKENS = 32_768
LEAST_TOKENS = 1024


def calibration_windows(source: Source, text: str) -> NDArray[np.int64]:
    """Token ids, int64 (windows, context), spread evenly over the text, of at most `MOST_TOKENS` tokens.

    Raises:
        ConfigError: the model has no tokenizer, or the text gives less than `LEAST_TOKENS` tokens.
    """
    if source.tokenizer is None:
        raise ConfigError(f"{source.name} has no tokenizer, so no text can calibrate it; leave --calibration out")
    ids = source.tokenizer.encode(text)
    if len(ids) < LEAST_TOKENS:
        raise ConfigError(
            f"the calibration text has {len(ids)} tokens, at least {LEAST_TOKENS} are needed to say anything of the "
            "layers' inputs; pass a longer one"
        )
    length = min(source.context_length, len(ids))
    count = len(ids) // length
    rows = np.array(ids[: count * length], np.int64).reshape(count, length)
    most = max(1, MOST_TOKENS // length)
    return rows if count <= most else rows[np.linspace(0, count - 1, most).astype(np.int64)]
