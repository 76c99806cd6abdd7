"""What lies between the product of queries and keys and the softmax, found by feeding it: scale, cap, mask, sink."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from gpt_export.passes.fused.probes import Probe

Array = np.ndarray
Logits = Callable[[Probe, Array, Array], Array]
"""A probe, queries (batch, new, heads x width) that are not turned yet and keys (batch, kv heads, total, width) to what
the softmax is taken of: (batch, heads, new, total), or one column more."""
Bias = Literal["none", "slopes", "other"]
_HIDDEN = 1000.0
"""What is this far below the largest of its row is hidden: no distance of a slope within `_LENGTHS[0]` is."""
_CLOSE = 1e-4
_FIRST_LENGTH, _LONGER = 64, 8
_SATURATED = 1e5
_NOISE = 1e-6


@dataclass(frozen=True, slots=True)
class Scores:
    """How scores become what the softmax is taken of."""

    scale: float
    cap: float
    """Scores x become cap * tanh(x / cap); 0 leaves them."""
    window: int
    """How many keys a query sees, itself included; 0 for all before it."""
    bias: Bias
    """What is added to the scores beside causality, window and padding: nothing, slope times distance, or more."""
    sink: Array | None
    """float32 (heads): what the softmax counts beside the keys."""


class OtherScoresError(Exception):
    """What lies between product and softmax is not known."""


def find_scores(
    logits: Logits, turned: Callable[[Array, Probe], Array], shape: tuple[int, int, int], context_length: int
) -> Scores:
    """The facts about `logits`.

    Args:
        turned: queries (batch, new, heads x width) to what is multiplied with the keys, without any factor.
        shape: heads, heads of keys and values, and their width.

    Raises:
        OtherScoresError: it is neither a scale nor a cap, or depends on something else.
    """
    heads, kv_heads, width = shape
    total = min(40, context_length)
    probe = Probe(2, total // 4, total - total // 4, (0, total // 3))
    rng = np.random.default_rng(7)
    queries = rng.normal(size=(2, probe.new, heads * width)).astype(np.float32)
    keys = rng.normal(size=(2, kv_heads, total, width)).astype(np.float32)
    bare, sink = _without_sink(logits(probe, np.zeros_like(queries), keys), probe)
    seen = _seen(bare)
    products = np.einsum("bhtd,bhsd->bhts", turned(queries, probe), np.repeat(keys, heads // kv_heads, axis=1))
    at = seen & probe.real[:, None, :, None]

    def moved(factor: float) -> Array:
        found, _ = _without_sink(logits(probe, queries * np.float32(factor), keys), probe)
        return np.asarray(found[at] - bare[at], np.float64)

    scale, cap = _scale_and_cap(moved, products[at])
    window = _window(logits, shape, context_length, sink is not None)
    bias = _bias(bare, seen, probe, window)
    return Scores(_rounded(scale, width), _rounded(cap), 0 if bias == "other" else window or 0, bias, sink)


def _without_sink(found: Array, probe: Probe) -> tuple[Array, Array | None]:
    """The columns of the keys, and the sink of each head if there is one column more."""
    if found.shape[-1] == probe.total:
        return found, None
    sink = found[..., -1]
    if found.shape[-1] != probe.total + 1 or np.ptp(sink, axis=(0, 2)).any():
        raise OtherScoresError(f"its softmax is over {found.shape[-1]} numbers where {probe.total} tokens are")
    return found[..., :-1], sink[0, :, 0]


def _seen(bare: Array) -> Array:
    return np.asarray(bare > bare.max(-1, keepdims=True) - _HIDDEN)


def _scale_and_cap(moved: Callable[[float], Array], products: Array) -> tuple[float, float]:
    found = moved(1.0)
    scale = float(found @ products / (products @ products))
    if _near(found, scale * products):
        return scale, 0.0
    cap = float(np.abs(moved(_SATURATED)).max())
    inner = np.abs(found) < 0.9 * cap
    if not inner.any():
        raise OtherScoresError("its scores are neither scaled nor capped")
    linear = cap * np.arctanh(found[inner] / cap)
    scale = float(linear @ products[inner] / (products[inner] @ products[inner]))
    if not _near(found, cap * np.tanh(scale * products / cap)):
        raise OtherScoresError("its scores are neither scaled nor capped, or heads read keys in another order")
    return scale, cap


def _rounded(found: float, width: int = 1) -> float:
    """`found` without the noise it was measured with: 1 / sqrt(width), or six digits."""
    usual = 1 / math.sqrt(width)
    return usual if abs(found - usual) < _NOISE * usual else float(f"{found:.6g}")


def _near(found: Array, wanted: Array) -> bool:
    return bool(np.abs(found - wanted).max() <= _CLOSE * np.abs(wanted).max())


def _window(logits: Logits, shape: tuple[int, int, int], context_length: int, sunk: bool) -> int | None:
    """How many keys the last token of a long text sees; 0 if all, None if they are not the last ones."""
    heads, kv_heads, width = shape
    for length in _lengths(context_length):
        probe = Probe(1, length - 1, 1)
        query = np.zeros((1, 1, heads * width), np.float32)
        row = logits(probe, query, np.zeros((1, kv_heads, length, width), np.float32))
        seen = _seen(row[..., :-1] if sunk else row)[0, :, 0]
        count = int(seen[0].sum())
        if not (seen == (np.arange(length) >= length - count)).all():
            return None
        if count < length:
            return count
    return 0


def _lengths(context_length: int) -> Iterator[int]:
    length = _FIRST_LENGTH
    while length < context_length:
        yield length
        length *= _LONGER
    yield context_length


def _bias(bare: Array, seen: Array, probe: Probe, window: int | None) -> Bias:
    rows = probe.past + np.arange(probe.new)
    behind = rows[:, None] - np.arange(probe.total)
    expected = (behind >= 0) & (behind < (window or probe.total)) & probe.mask.astype(bool)[:, None]
    real = np.broadcast_to(probe.real[:, None, :, None], bare.shape)
    if window is None or not (seen == expected[:, None])[real].all():
        return "other"
    at = seen & real
    if not np.abs(bare[at]).any():
        return "none"
    distance = np.broadcast_to(-behind, bare.shape)
    for head in range(bare.shape[1]):
        x, y = distance[:, head][at[:, head]].astype(np.float64), bare[:, head][at[:, head]]
        slope = float(x @ y / max(x @ x, 1))
        if not np.allclose(y, slope * x, atol=_CLOSE):
            return "other"
    return "slopes"
