"""Causes that lie in a weight: what the file holds, and what the values say was multiplied."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gpt_export.gate.tracing.activations import Array
from gpt_export.gate.tracing.anchors import WHOLE
from gpt_export.gate.tracing.evidence import EXPLAINED, Evidence

_BITS = (8, 7, 6, 5, 4, 3, 2)


def stored_cause(evidence: Evidence) -> str:
    """How a parameter of the module differs in the file from the reference's; empty if the file has it right."""
    if evidence.anchor.end != "output":
        return ""
    for module in evidence.anchor.modules:
        for name in [name for name in evidence.weights if name.rpartition(".")[0] == module and module != WHOLE]:
            own, stored = evidence.parameter(name), evidence.stored(name)
            if own is None or stored is None or np.array_equal(own, stored):
                continue
            if words := _difference(evidence, name, own, stored):
                return f"{name} {words}"
            share = np.abs(stored - own).max() / (np.abs(own).max() or 1.0)
            return f"{name} is not the source's: it is off by up to {share:.2g} of its largest element"
    return ""


def linear_cause(evidence: Evidence) -> str:
    """What a linear layer did to its input, where its weights in the file are the source's or cannot be read."""
    if evidence.anchor.end != "output" or len(evidence.anchor.modules) > 1:
        return ""
    module = evidence.module
    weight, before = evidence.parameter(f"{module}.weight"), evidence.graph_value(module, "input")
    if weight is None or weight.ndim != 2 or before is None or before.shape[-1] not in weight.shape:
        return ""
    return evidence.best(_products(evidence, module, weight, before))


def _products(
    evidence: Evidence, module: str, weight: NDArray[np.float32], before: Array
) -> Iterator[tuple[str, Array]]:
    own_bias = evidence.parameter(f"{module}.bias")
    bias = np.zeros(1, np.float32) if own_bias is None else own_bias
    if weight.shape[0] == weight.shape[1]:
        yield f"{module}.weight is transposed", before @ weight + bias
    if before.shape[-1] != weight.shape[1]:
        return
    if own_bias is not None:
        yield f"{module}.bias is missing", before @ weight.T
    for name in evidence.weights:
        other = evidence.parameter(name) if name.endswith(".weight") and name != f"{module}.weight" else None
        if other is None or other.shape != weight.shape:
            continue
        other_bias = evidence.parameter(name.replace(".weight", ".bias"))
        words = f"{module} computes with {name}: layers or weights are swapped"
        yield words, before @ other.T + bias
        if other_bias is not None and other_bias.shape == bias.shape:
            yield words, before @ other.T + other_bias


def _difference(evidence: Evidence, name: str, own: NDArray[np.float32], stored: NDArray[np.float32]) -> str:
    if own.ndim == 2 and own.shape[0] == own.shape[1] and np.array_equal(stored, own.T):
        return "is transposed"
    for other in evidence.weights:
        values = evidence.parameter(other) if other != name else None
        if values is not None and values.shape == own.shape and np.array_equal(stored, values):
            return f"holds the values of {other}: layers or weights are swapped"
    if np.array_equal(stored, own.astype(np.float16).astype(np.float32)):
        return "is rounded to float16"
    if not (stored.view(np.uint32) & 0xFFFF).any():
        return "is rounded to bfloat16"
    for shift in (1, -1, 2, -2):
        if own.ndim == 2 and np.array_equal(stored, np.roll(own, shift, axis=0)):
            return f"has its rows shifted by {shift:+d}, as if every position or id were another"
    return _rounded(own, stored) or _permuted(own, stored)


def _rounded(own: NDArray[np.float32], stored: NDArray[np.float32]) -> str:
    """Symmetric rounding with one scale a tensor, a row or a column, in the fewest bits that explain it."""
    if own.ndim != 2:
        return ""
    found = ""
    for axis in (None, 1, 0):
        largest = np.abs(own).max(axis=axis, keepdims=True)
        for bits in _BITS:
            step = np.maximum(largest / (2 ** (bits - 1) - 1), 1e-30)
            off = np.abs(stored / step - np.round(stored / step)).max()
            near = np.abs(stored - own).max() <= 0.51 * step.max()
            if off <= EXPLAINED / 10 and near:
                found = f"is rounded to {bits} bits"
    return found


def _permuted(own: NDArray[np.float32], stored: NDArray[np.float32]) -> str:
    """Equal blocks of rows or columns in another order, as when heads are permuted."""
    if own.ndim != 2:
        return ""
    for axis, a, b in ((0, own, stored), (1, own.T, stored.T)):
        first = np.flatnonzero((a == b[0]).all(axis=1))
        if not len(first) or not np.array_equal(np.sort(a[:, 0]), np.sort(b[:, 0])):
            continue
        places = [np.flatnonzero((a == row).all(axis=1)) for row in b]
        if all(len(place) for place in places):
            at = np.array([place[0] for place in places])
            blocks = int(np.count_nonzero(np.diff(at) != 1)) + 1
            what = "columns" if axis else "rows"
            return f"has its {what} in another order, in {blocks} blocks: heads or channels are permuted"
    return ""
