"""Norms as functions: which one an eager module is, found by what it makes of its input, and which one a graph has."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gpt_export.gate.tracing.activations import Array
from gpt_export.gate.tracing.evidence import Evidence

EPSILONS = (0.0, 1e-12, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
_FITS = 1e-4
OTHER_EPSILON = "another epsilon"


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm:
    """`centred` takes the mean off (layer norm) or not (RMS norm); the scale may be read as an offset from 1."""

    scale: NDArray[np.float32]
    shift: NDArray[np.float32]
    epsilon: float = 1e-5
    centred: bool = True
    offset: float = 0.0

    def __call__(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """`x` (..., width) normed over its last axis."""
        x = x - x.mean(axis=-1, keepdims=True) if self.centred else x
        square = np.square(x).mean(axis=-1, keepdims=True)
        made: NDArray[np.float64] = (
            x / np.sqrt(square + self.epsilon + 1e-300) * (self.scale + self.offset) + self.shift
        )
        return made


def fitted_norm(evidence: Evidence, module: str) -> Norm | None:
    """The norm that eager's `module` is, None if it is none that is known."""
    before, after = (evidence.expected.get((module, end)) for end in ("input", "output"))
    if before is None or after is None or before.shape != after.shape:
        return None
    x = before.astype(np.float64)
    best, least = None, math.inf
    for norm in _kinds(evidence, module):
        try:
            error = float(np.abs(norm(x) - after).max())
        except ValueError:  # parameters of another width
            return None
        if error < least:
            best, least = norm, error
    return best if least <= _FITS * (float(np.abs(after).max()) or 1.0) else None


def _kinds(evidence: Evidence, module: str) -> Iterator[Norm]:
    scale = [evidence.parameter(f"{module}.{name}") for name in ("scale", "weight")]
    shift = [evidence.parameter(f"{module}.{name}") for name in ("shift", "bias")]
    own = next((each for each in scale if each is not None), np.ones(1, np.float32))
    moved = next((each for each in shift if each is not None), np.zeros(1, np.float32))
    for centred in (True, False):
        for offset in (0.0, 1.0):
            for epsilon in EPSILONS:
                yield Norm(scale=own, shift=moved, epsilon=epsilon, centred=centred, offset=offset)


def wrong_norms(right: Norm, x: Array) -> Iterator[tuple[str, Array]]:
    """What other norms than `right` make of `x`, in words and values."""
    wide = x.astype(np.float64)
    make: Callable[[Norm], Array] = lambda norm: norm(wide)  # noqa: E731
    for epsilon in EPSILONS:
        if epsilon != right.epsilon:
            yield OTHER_EPSILON, make(replace(right, epsilon=epsilon))
    words = "the scale is taken as 1 + w, not as w" if right.offset == 0 else "the 1 of the scale 1 + w is left out"
    yield words, make(replace(right, offset=1.0 - right.offset))
    words = "the mean is not taken off (an RMS norm)" if right.centred else "the mean is taken off (a layer norm)"
    yield words, make(replace(right, centred=not right.centred))
    yield "the scale is left out", make(replace(right, scale=np.ones(1, np.float32), offset=0.0))
    if right.shift.any():
        yield "the shift is left out", make(replace(right, shift=np.zeros(1, np.float32)))
    yield "the norm is left out", wide
