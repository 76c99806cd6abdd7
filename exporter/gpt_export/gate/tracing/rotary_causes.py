"""Causes in an attention of grouped heads and rotations, found by computing each wrong one from eager's projections."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from gpt_export.gate.tracing.activations import Array
from gpt_export.gate.tracing.evidence import EXPLAINED, Evidence
from gpt_export.gate.tracing.norms import fitted_norm
from gpt_export.gate.tracing.projections import projections_of
from gpt_export.gate.tracing.rotary_attention import (
    BASES,
    CAPS,
    Normed,
    Projected,
    RotaryAttention,
    Rotation,
    fit,
    widths,
    within,
)


@dataclass(frozen=True, slots=True)
class _Row:
    """One row without padding: what eager has, and what the graph gives."""

    projected: Projected
    got: Array


def rotary_cause(evidence: Evidence) -> str:
    """The wrong attention that gives the graph's values; empty where eager's own is none that is known."""
    block = evidence.module.rpartition(".")[0]
    found = projections_of(evidence, block, evidence.wanted.shape[1])
    rows = [] if found is None else list(_rows(evidence, block, found))
    if not rows:
        return ""
    longest = max(rows, key=lambda row: len(row.got))
    right = fit(longest.projected)
    if right is None:
        return ""
    cuts = evidence.case.cuts()
    deviation = max(float(np.abs(row.got - row.projected.mixed).max()) for row in rows)
    tried = {words: _off_by(wrong, rows, cuts) for words, wrong in _wrong_ways(right, len(longest.got))}
    least = min(tried.values(), default=math.inf)
    if least > EXPLAINED * deviation:
        return ""
    return next(words for words, error in tried.items() if error <= 2 * least)  # of equals, the likelier


def _off_by(attention: RotaryAttention, rows: list[_Row], cuts: list[tuple[int, int]]) -> float:
    worst = 0.0
    for row in rows:
        of = row.projected
        error = float(np.abs(attention.run(of.query, of.key, of.value, cuts) - row.got).max())
        worst = max(worst, error if np.isfinite(error) else math.inf)
    return worst


def _wrong_ways(right: RotaryAttention, length: int) -> Iterator[tuple[str, RotaryAttention]]:
    yield from _wrong_rotations(right)
    yield from _wrong_norms(right)
    yield from _wrong_masks(right, length)
    tiled, in_turn = "one set behind another", "each as often as it is shared, side by side"
    ways = (tiled, in_turn) if not right.tiled else (in_turn, tiled)
    yield (
        f"keys and values are repeated in the wrong order: {ways[0]}, not {ways[1]}",
        replace(right, tiled=not right.tiled),
    )
    if right.cap is not None:
        yield f"the soft cap of {right.cap:g} on the scores is left out", replace(right, cap=None)
    for cap in CAPS:
        if cap is not None and cap != right.cap:
            beside = "" if right.cap is None else f", not at {right.cap:g}"
            yield f"the scores are capped at {cap:g}{beside}", replace(right, cap=cap)
    yield "the scale 1/sqrt(d) of the scores is left out", replace(right, scale_power=0.0)
    yield "the scores are scaled by 1/d, not by 1/sqrt(d)", replace(right, scale_power=-1.0)


def _wrong_rotations(right: RotaryAttention) -> Iterator[tuple[str, RotaryAttention]]:
    own = right.rotation
    if own is None:
        plain = Rotation(interleaved=False, base=BASES[0], turned=right.head)
        yield "queries and keys are rotated, which they should not be", replace(right, rotation=plain)
        return
    kinds = ("by halves", "interleaved")
    words = f"the rotation is {kinds[not own.interleaved]} where it should be {kinds[own.interleaved]}"
    yield words, replace(right, rotation=replace(own, interleaved=not own.interleaved))
    yield "the rotation is left out", replace(right, rotation=None)
    yield "the rotation turns the other way", replace(right, rotation=replace(own, backwards=True))
    for base in BASES:
        if base != own.base:
            words = f"the base of the rotation is {base:g}, not {own.base:g}"
            yield words, replace(right, rotation=replace(own, base=base))
    for width in widths(right.head):
        if width != own.turned:
            words = f"the rotation is {width} wide, not {own.turned}"
            yield words, replace(right, rotation=replace(own, turned=width))
    yield "queries are not rotated", replace(right, turns_query=False)
    yield "keys are not rotated", replace(right, turns_key=False)
    yield "past keys are kept from in front of their rotation", replace(right, turns_past=False)
    yield (
        "new keys are kept from in front of their rotation, as if past ones had none",
        replace(right, turns_key=False, turns_past=False),
    )
    yield "the rotation counts positions from 0 in every piece", replace(right, positions_by_piece=True)


def _wrong_norms(right: RotaryAttention) -> Iterator[tuple[str, RotaryAttention]]:
    if right.query_norm is None:
        return
    sides = ("in front of", "behind")
    words = f"queries and keys are normed {sides[not right.norm_behind_rotation]} their rotation, not "
    yield words + sides[right.norm_behind_rotation], replace(right, norm_behind_rotation=not right.norm_behind_rotation)
    yield "the norms of queries and keys are left out", replace(right, query_norm=None, key_norm=None)
    yield (
        "the norms of queries and keys are exchanged",
        replace(right, query_norm=right.key_norm, key_norm=right.query_norm),
    )


def _wrong_masks(right: RotaryAttention, length: int) -> Iterator[tuple[str, RotaryAttention]]:
    own = right.window
    if own is not None:
        for window in (own + 1, own - 1):
            words = f"the window is off by one: it is of {window} tokens, not of {own}"
            yield words, replace(right, window=window)
        yield f"the window of {own} tokens is left out", replace(right, window=None)
        words = f"the window of {own} tokens is counted from the start of the text"
        yield words, replace(right, visible=lambda q, k, _s: (k <= q) & (k < own))
        words = f"the window of {own} tokens is left out where there is a past"
        yield words, replace(right, visible=lambda q, k, s: (k <= q) & (k > q - s - own))
    for window in range(1, length):
        if own is None or abs(window - own) > 1:
            yield f"a query sees a window of the last {window} keys alone", replace(right, window=window)
    seen = within(own or length)
    yield "the causal mask does not count the past", replace(right, visible=lambda q, k, s: seen(q - s, k, s))
    yield "the past is ignored", replace(right, visible=lambda q, k, s: seen(q, k, s) & (k >= s))
    yield (
        "the causal mask is off by one: a query sees one token too far",
        replace(right, visible=lambda q, k, s: seen(q, k, s) | (k == q + 1)),
    )
    yield "no causal mask: every query sees all keys", replace(right, visible=lambda q, k, _s: k <= q + length)


def _rows(evidence: Evidence, block: str, found: tuple[Array, Array, Array]) -> Iterator[_Row]:
    norms = _norms(evidence, block)
    start = 0
    for mask in evidence.case.mask:
        stop = start + int(mask.sum())
        if mask.all():
            query, key, value = (array[start:stop] for array in found)
            width = norms[1] if norms else None
            projected = Projected(query, key, value, evidence.wanted[start:stop], norms[0] if norms else None, width)
            yield _Row(projected, evidence.got[start:stop])
        start = stop


def _norms(evidence: Evidence, block: str) -> tuple[tuple[Normed, Normed], int] | None:
    """The norms of a head's queries and of its keys, as eager computes them, and a head's width."""
    names = [name.rpartition(".")[0] for name in evidence.weights if name.startswith(f"{block}.") and "norm" in name]
    queries = [name for name in dict.fromkeys(names) if name.rpartition(".")[2].startswith("q")]
    keys = [name for name in dict.fromkeys(names) if name.rpartition(".")[2].startswith("k")]
    if len(queries) != 1 or len(keys) != 1:
        return None
    query, key = fitted_norm(evidence, queries[0]), fitted_norm(evidence, keys[0])
    width = evidence.expected[queries[0], "output"].shape[-1] if (queries[0], "output") in evidence.expected else 0
    return None if query is None or key is None else ((query, key), width)
