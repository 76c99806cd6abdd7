"""Two models' logits of the same positions, compared in float64.

KL(p || q) = log sum(p exp(d)) - sum(p d) with d the difference of the logits: nothing large is subtracted, so a small
divergence keeps its digits where log p - log q would lose them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_SLICE_ELEMENTS = 128 * 1024
"""A slice and what is made of it stay in cache."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of each position: the losses of both in nats, the divergence, and both likeliest tokens."""

    loss: Floats
    reference_loss: Floats
    kl: Floats
    top_log_probability: Floats
    top: NDArray[np.int64]
    reference_top: NDArray[np.int64]


def compare(logits: NDArray[np.float32], reference: NDArray[np.float32], targets: NDArray[np.int64]) -> Comparison:
    """The comparison of logits, float32 (positions, vocabulary), with those of the reference, at the targets."""
    count, width = logits.shape
    rows = max(1, _SLICE_ELEMENTS // width)
    parts = [
        _slice(logits[at : at + rows], reference[at : at + rows], targets[at : at + rows])
        for at in range(0, count, rows)
    ]
    return Comparison(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _slice(
    found: NDArray[np.float32], expected: NDArray[np.float32], targets: NDArray[np.int64]
) -> tuple[Floats, Floats, Floats, Floats, NDArray[np.int64], NDArray[np.int64]]:
    at = np.arange(len(found))
    top, reference_top = found.argmax(axis=1), expected.argmax(axis=1)
    a = expected.astype(np.float64) - expected[at, reference_top, None]
    b = found.astype(np.float64) - found[at, top, None]
    d = b - a
    p = np.exp(a)
    total = p.sum(axis=1)
    lift = d.max(axis=1, keepdims=True)
    log_total = np.log(total)
    log_found = np.log(np.einsum("ij,ij->i", p, np.exp(d - lift))) + lift[:, 0]  # sum(exp(b)), since a + d = b
    kl = np.maximum(log_found - log_total - np.einsum("ij,ij->i", p, d) / total, 0.0)
    return log_found - b[at, targets], log_total - a[at, targets], kl, -log_found, top, reference_top
