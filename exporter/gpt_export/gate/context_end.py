"""A long row, judged by what the first layers leave of it, where running it whole would be most of the gate's work.

A row that passes so has shown what only its length can show: the end of positions, masks and caches. One that does not,
or cannot be followed, is run whole, and its logits decide.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from gpt_export.gate.case import Case
from gpt_export.gate.limits import Limits
from gpt_export.gate.noise import NOISE_CEILING
from gpt_export.gate.parity import Tolerance, compare
from gpt_export.gate.reference_logits import save
from gpt_export.gate.report import CaseResult
from gpt_export.gate.tracing.first_layers import FirstLayers

logger = logging.getLogger(__name__)

MUCH_WORK = 2e10
"""Products of a row's tokens with the model's parameters from which on the row is not run whole."""
LEAST_LENGTH = 128
"""A shorter row has no end of a context to show, however large the model."""


@dataclass(frozen=True, slots=True)
class ContextEnd:
    """A row, what eager has behind the first layers, and how far eager's float32 is off there."""

    case: Case
    layers: FirstLayers
    expected: Path
    noise: float

    @classmethod
    def read(
        cls, case: Case, layers: FirstLayers, reference: nn.Module, probe: NDArray[np.int64], folder: Path
    ) -> ContextEnd | None:
        """The row through the first layers of `reference`; None where they cannot be had alone.

        Args:
            probe: a short row, on which the noise is measured.
            folder: where what eager has is kept.
        """
        noise = layers.noise_of(reference, probe)
        if noise is not None and noise > NOISE_CEILING:
            return None
        found = layers.of_eager(reference, case.ids) if noise is not None else None
        if found is None or noise is None or found.shape[:2] != case.ids.shape:
            return None
        path = folder / f"{case.name}-layers.npy"
        save(path, found.float().numpy())
        return cls(case, layers, path, noise)

    def verdict(self, limits: Limits) -> CaseResult | None:
        """What the graph has there beside it; None where that cannot be said, and for limits meant for logits alone."""
        if limits.noise_factor is None:
            return None
        try:
            found = self.layers.of_graph(self.case)
        except Exception:  # onnxruntime's errors share no base class; the whole graph says what is wrong with it
            logger.info("the first layers do not run on %s", self.case.name, exc_info=True)
            return None
        expected = np.load(self.expected, mmap_mode="r")
        result = compare(
            self.case.shown(), expected, found, Tolerance(limits=limits, noise=self.noise, source="layers")
        )
        note = f"what {self.layers.layers} of {self.layers.of} layers leave is compared; the others do the same"
        return replace(result, note=note, kl_mean=0.0, kl_max=0.0)


def long_rows(cases: Sequence[Case], parameters: int) -> list[Case]:
    """The cases of one row that are too much work to be run whole on a model of so many parameters."""
    return [
        case
        for case in cases
        if case.needs == "ids" and len(case.ids) == 1 and not case.is_text and not case.by_prefix
        if case.mask.all() and case.positions >= LEAST_LENGTH and case.positions * parameters >= MUCH_WORK
    ]
