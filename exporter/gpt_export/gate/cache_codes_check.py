"""The codes that a cache of 8 bits holds while the cases run: are they scaled for the numbers they stand for?

Codes and their scale are one: a scale of another channel spoils nothing by itself, it cuts off what is larger and
leaves few steps to what is smaller. Both show in the codes, whatever the logits of a few texts say.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gpt_export.runtime.decoding import Past

HIGHEST = 127
MOST_CUT = 0.01
"""Of a channel's codes, the share that may be the largest there is. Where scales are right, numbers beyond what they
were found on are rarer by far."""
HALF = HIGHEST // 2
MOST_UNUSED = 0.25
"""Of the channels of a layer, the share whose codes may all be below half of the largest."""
LEAST_TOKENS = 256
"""Of fewer, the largest code says nothing of a channel that was scaled by thousands."""


class CacheCodes:
    """What was seen of the codes of one variant, layer by layer and kind by kind."""

    def __init__(self, variant: str) -> None:
        self._variant = variant
        self._largest: list[NDArray[np.int64]] = []
        self._cut: list[NDArray[np.int64]] = []
        self._tokens = 0

    def look(self, past: Past) -> None:
        """Takes in what a decoding has cached, int8 (rows, heads, tokens, width) a layer and kind; padding is passed
        over."""
        real = past.mask.astype(bool)
        if not self._largest:
            shapes = [(array.shape[1], array.shape[3]) for array in past.arrays]
            self._largest = [np.zeros(shape, np.int64) for shape in shapes]
            self._cut = [np.zeros(shape, np.int64) for shape in shapes]
        for largest, cut, array in zip(self._largest, self._cut, past.arrays, strict=True):
            codes = np.abs(np.moveaxis(array, 2, 1)[real].astype(np.int16))  # (tokens, heads, width)
            np.maximum(largest, codes.max(axis=0, initial=0), out=largest)
            cut += np.count_nonzero(codes >= HIGHEST, axis=0)
        self._tokens += int(real.sum())

    def faults(self) -> Iterator[str]:
        """A sentence for each layer and kind whose codes are cut off, or leave their range unused."""
        for index, (largest, cut) in enumerate(zip(self._largest, self._cut, strict=True)):
            what = f"{self._variant}, the cached {('keys', 'values')[index % 2]} of layer {index // 2}"
            heads = sorted(set(np.argwhere(cut > MOST_CUT * self._tokens)[:, 0].tolist()))
            if heads:
                named = ", ".join(map(str, heads[:4])) + (" and others" if len(heads) > 4 else "")
                yield f"{what} are cut off in head {named}: their scale is that of smaller numbers"
            unused = float((largest < HALF).mean())
            if self._tokens >= LEAST_TOKENS and unused > MOST_UNUSED:
                yield f"{what} use less than half of their codes in {unused:.0%} of the channels: a scale too wide"
