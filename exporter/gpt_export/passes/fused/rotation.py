"""What turns keys and queries by their positions, found by putting basis vectors through it.

A rotary embedding is linear at a fixed position, and its matrix turns pairs of numbers: Su et al., arXiv:2104.09864.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gpt_export.passes.fused.probes import Probe

Array = np.ndarray
Map = Callable[[Array, Probe, Array], Array]
"""Numbers (batch, new, heads x width), their probe and positions (batch, new) to (batch, heads, new, width)."""
_CLOSE = 1e-5
_AT, _SLOTS_BEFORE = 7, 11
_TABLE_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Rotation:
    """Pairs of numbers turned by an angle that depends on the position."""

    interleaved: bool
    """Pairs are neighbours, (2i, 2i + 1), and not (i, i + width / 2)."""
    width: int
    """How many numbers of a head are turned, from the first on."""
    cos: Array
    """float32 (positions, width / 2)."""
    sin: Array

    def applied(self, x: Array, positions: Array) -> Array:
        """`x` (batch, heads, new, head width) turned by `positions` (batch, new)."""
        first, second = self.halves()
        cos, sin = self.cos[positions][:, None], self.sin[positions][:, None]
        out = x.copy()
        out[..., first] = x[..., first] * cos - x[..., second] * sin
        out[..., second] = x[..., first] * sin + x[..., second] * cos
        return out

    def halves(self) -> tuple[slice, slice]:
        """Where the first and the second of each pair stand."""
        if self.interleaved:
            return slice(0, self.width, 2), slice(1, self.width, 2)
        return slice(0, self.width // 2), slice(self.width // 2, self.width)


def find_rotation(turned: Map, heads: int, width: int, context_length: int) -> Rotation | None:
    """The rotation that `turned` is, of `heads` heads of `width` numbers; None if it is something else.

    A map that leaves everything as it is has a `width` of 0.
    """
    matrix = _matrix(turned, heads, width, min(_AT, context_length - 1))
    pairing = _pairing(matrix) if matrix is not None else None
    if matrix is None or pairing is None:
        return None
    interleaved, rotated = pairing
    if not rotated:
        return Rotation(False, 0, np.zeros((0, 0)), np.zeros((0, 0))) if _same(matrix, np.eye(width)) else None
    bare = Rotation(interleaved, rotated, np.zeros((0, 0)), np.zeros((0, 0)))
    cos, sin = _table(turned, bare, heads, width, context_length)
    return Rotation(interleaved, rotated, cos, sin)


def turns_as(turned: Map, rotation: Rotation, heads: int, width: int, context_length: int) -> float | None:
    """The factor by which `turned` is more than `rotation`, found on random numbers; None if it is something else."""
    rng = np.random.default_rng(5)
    new = min(9, context_length)
    probe = Probe(2, 0, new, (0, new // 2))
    x = rng.normal(size=(2, new, heads * width)).astype(np.float32)
    wanted = np.moveaxis(x.reshape(2, new, heads, width), 2, 1)
    if rotation.width:
        wanted = rotation.applied(wanted, probe.positions)
    found = turned(x, probe, probe.positions)
    factor = float((found * wanted).sum() / (wanted * wanted).sum())
    return factor if factor and _same(found / factor, wanted) else None


def _matrix(turned: Map, heads: int, width: int, position: int) -> Array | None:
    """float32 (in, out) of one head at `position`; None if it is not linear, or differs from head to head.

    The token stands in another slot than at its position, as it does behind padding.
    """
    padded = _SLOTS_BEFORE - _AT
    probe = Probe(width, position + padded, 1, (padded,) * width)
    factors = 1 + np.arange(heads, dtype=np.float32) / heads
    x = (np.eye(width, dtype=np.float32)[:, None] * factors[:, None]).reshape(width, 1, heads * width)
    found = turned(x, probe, np.full((width, 1), position))[:, :, 0] / factors[:, None]
    zero = turned(np.zeros_like(x), probe, np.full((width, 1), position))
    alike = all(_same(found[:, head], found[:, 0]) for head in range(heads))
    return found[:, 0] if alike and not zero.any() else None


def _pairing(matrix: Array) -> tuple[bool, int] | None:
    """Whether pairs are neighbours, and how many numbers turn; None if the matrix does not turn pairs."""
    beside = np.abs(matrix) > 0
    np.fill_diagonal(beside, False)
    if (beside.sum(0) > 1).any() or (beside != beside.T).any():
        return None
    first = [row for row in range(len(matrix)) if beside[row, row:].any()]
    offsets = {int(np.argmax(beside[row])) - row for row in first}
    if not first:
        return False, 0
    if offsets == {1} and all(row % 2 == 0 for row in first):
        return True, first[-1] + 2
    offset = offsets.pop()
    if offsets or first[-1] >= offset:
        return None
    return False, 2 * offset


def _table(turned: Map, bare: Rotation, heads: int, width: int, context_length: int) -> tuple[Array, Array]:
    """cos and sin of every position: what becomes of vectors that are 1 at the first of each pair, and 0 elsewhere."""
    first, second = bare.halves()
    one = np.zeros(width, np.float32)
    one[first] = 1
    parts = []
    for start in range(0, context_length, _TABLE_ROWS):
        new = min(_TABLE_ROWS, context_length - start)
        probe = Probe(1, start, new)
        x = np.tile(one, (1, new, heads)).astype(np.float32)
        parts.append(turned(x, probe, probe.positions)[0, 0])
    whole = np.concatenate(parts)
    return np.ascontiguousarray(whole[:, first]), np.ascontiguousarray(whole[:, second])


def _same(found: Array, wanted: Array) -> bool:
    return bool(np.abs(found - wanted).max(initial=0) <= _CLOSE * max(1.0, float(np.abs(wanted).max(initial=0))))
