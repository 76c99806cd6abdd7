"""Attention as Llama and its kin compute it, in NumPy: grouped heads, norms of queries and keys, rotation, cap, window.

Eager does not say which of these a module computes. What it does is found by trying: the projections and what the
output projection reads are known, and few ways lead from one to the other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gpt_export.gate.tracing.activations import Array

Heads = NDArray[np.float64]
"""(heads, positions, head size)."""
Visible = Callable[[NDArray[np.int64], NDArray[np.int64], int], NDArray[np.bool_]]
"""Which keys (second) a query (first) sees, by position, given where the piece starts."""
Normed = Callable[[Heads], Heads]

BASES = (10_000.0, 500_000.0, 1_000_000.0, 100_000.0, 50_000.0, 150_000.0, 5_000_000.0, 1_000.0, 100.0)
CAPS = (None, 50.0, 30.0, 20.0, 15.0, 10.0, 5.0)
FITS = 1e-3
"""How far off a right attention may be, in units of the largest value."""
_FEW = 10
"""Tokens that the ways are tried on first; few windows are shorter."""
_HIDDEN = -1e30


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """How queries and keys are turned by their position (Su et al., RoFormer, 2021)."""

    interleaved: bool
    base: float
    turned: int
    """How much of each head."""
    backwards: bool = False

    def turn(self, x: Heads, at: NDArray[np.int64]) -> Heads:
        """`x` turned by the positions `at`."""
        angles = np.outer(at, self.base ** (-np.arange(0, self.turned, 2) / self.turned))
        cos, sin = np.cos(angles), np.sin(angles) * (-1 if self.backwards else 1)
        one, two = self._halves(self.turned)
        made = x.copy()
        made[..., one] = x[..., one] * cos - x[..., two] * sin
        made[..., two] = x[..., two] * cos + x[..., one] * sin
        return made

    def _halves(self, turned: int) -> tuple[slice, slice]:
        if self.interleaved:
            return slice(0, turned, 2), slice(1, turned, 2)
        return slice(0, turned // 2), slice(turned // 2, turned)


def causal(query: NDArray[np.int64], key: NDArray[np.int64], _start: int) -> NDArray[np.bool_]:
    """A query sees what is not behind it."""
    return key <= query


def within(window: int) -> Visible:
    """A query sees itself and the `window` - 1 tokens before it."""
    return lambda query, key, _start: (key <= query) & (key > query - window)


@dataclass(frozen=True, slots=True, kw_only=True)
class RotaryAttention:
    """What is computed, each field a way in which it may be wrong."""

    head: int
    rotation: Rotation | None = None
    query_norm: Normed | None = None
    key_norm: Normed | None = None
    norm_behind_rotation: bool = False
    scale_power: float = -0.5
    cap: float | None = None
    window: int | None = None
    visible: Visible | None = None
    """In place of `window`."""
    tiled: bool = False
    turns_query: bool = True
    turns_key: bool = True
    turns_past: bool = True
    positions_by_piece: bool = False

    def run(self, query: Array, key: Array, value: Array, cuts: list[tuple[int, int]]) -> Array:
        """What the output projection reads, (positions, width), of one row that is fed in pieces."""
        at = np.arange(len(query))
        if self.positions_by_piece:
            at = np.concatenate([np.arange(stop - start) for start, stop in cuts])
        q = self._prepared(self._split(query), self.query_norm, at, turns=self.turns_query)
        k = self._prepared(self._split(key), self.key_norm, at, turns=self.turns_key)
        raw = k if self.turns_past else self._prepared(self._split(key), self.key_norm, at, turns=False)
        v = self._repeated(self._split(value), len(q))
        k, raw = self._repeated(k, len(q)), self._repeated(raw, len(q))
        pieces = []
        for start, stop in cuts:
            keys = np.concatenate([raw[:, :start], k[:, start:stop]], axis=1)
            pieces.append(self._piece(q[:, start:stop], keys, v[:, :stop], start))
        mixed: Array = np.concatenate(pieces, axis=1).transpose(1, 0, 2).reshape(len(query), -1)
        return mixed

    def _piece(self, query: Heads, key: Heads, value: Heads, start: int) -> Heads:
        scores = query @ key.transpose(0, 2, 1) * float(self.head) ** self.scale_power
        if self.cap is not None:
            scores = self.cap * np.tanh(scores / self.cap)
        rows, columns = np.arange(start, start + query.shape[1]), np.arange(key.shape[1])
        visible = self.visible or (causal if self.window is None else within(self.window))
        scores = np.where(visible(rows[:, None], columns[None, :], start), scores, scores + _HIDDEN)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed: Heads = (weights / weights.sum(axis=-1, keepdims=True)) @ value
        return mixed

    def _prepared(self, x: Heads, norm: Normed | None, at: NDArray[np.int64], *, turns: bool) -> Heads:
        steps: list[Normed] = [norm] if norm is not None else []
        rotation = self.rotation
        if turns and rotation is not None:
            steps.insert(0 if self.norm_behind_rotation else len(steps), lambda each: rotation.turn(each, at))
        for step in steps:
            x = step(x)
        return x

    def _split(self, x: Array) -> Heads:
        split: Heads = x.astype(np.float64).reshape(len(x), -1, self.head).transpose(1, 0, 2)
        return split

    def _repeated(self, x: Heads, heads: int) -> Heads:
        times = heads // len(x)
        return np.tile(x, (times, 1, 1)) if self.tiled else np.repeat(x, times, axis=0)


@dataclass(frozen=True, slots=True)
class Projected:
    """Eager's queries, keys and values of one row, its norms of a head, and what its output projection reads."""

    query: Array
    key: Array
    value: Array
    mixed: Array
    norms: tuple[Normed, Normed] | None = None
    norm_width: int | None = None

    def off_by(self, attention: RotaryAttention, count: int | None = None) -> float:
        """The largest difference of what `attention` gives from eager, over the first `count` tokens."""
        part = slice(0, count)
        length = len(self.query[part])
        made = attention.run(self.query[part], self.key[part], self.value[part], [(0, length)])
        error = float(np.abs(made - self.mixed[part]).max())
        return error if np.isfinite(error) else math.inf


def fit(projected: Projected) -> RotaryAttention | None:
    """The attention that gives eager's values, None if none that is known does."""
    query, key, norms = projected.query.shape[1], projected.key.shape[1], projected.norms
    few = min(_FEW, len(projected.query))
    best, least = None, math.inf
    for head in [projected.norm_width] if projected.norm_width else _divisors(math.gcd(query, key)):
        for rotation, behind, cap in itertools.product(_rotations(head), (False, True) if norms else (False,), CAPS):
            tried = RotaryAttention(
                head=head, rotation=rotation, cap=cap, norm_behind_rotation=behind,
                query_norm=norms[0] if norms else None, key_norm=norms[1] if norms else None,
            )  # fmt: skip
            if (error := projected.off_by(tried, few)) < least:
                best, least = tried, error
    if best is None:
        return None
    windows = [None, *range(1, len(projected.query))]
    found = min((replace(best, window=window) for window in windows), key=projected.off_by)
    return found if projected.off_by(found) <= FITS * (float(np.abs(projected.mixed).max()) or 1.0) else None


def _divisors(number: int) -> list[int]:
    return [each for each in range(number, 1, -1) if number % each == 0]


def _rotations(head: int) -> Iterator[Rotation | None]:
    yield None
    for base, interleaved, turned in itertools.product(BASES, (False, True), widths(head)):
        yield Rotation(interleaved=interleaved, base=base, turned=turned)


def widths(head: int) -> list[int]:
    """The even numbers of a head's elements that models turn."""
    return [each for each in dict.fromkeys((head, head // 2, head // 4, 3 * head // 4)) if each > 1 and each % 2 == 0]
