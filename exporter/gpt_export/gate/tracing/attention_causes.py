"""Causes between the projections and the output projection of an attention, found by computing each wrong attention.

The projections are right where this is asked, so eager's own queries, keys and values are what the graph started from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gpt_export.gate.tracing.activations import Array
from gpt_export.gate.tracing.anchors import Anchor
from gpt_export.gate.tracing.evidence import EXPLAINED, Evidence
from gpt_export.gate.tracing.rotary_causes import rotary_cause

_HIDDEN = -3e4
_WINDOWS = (*range(1, 17), 32, 64, 128)
_PIECES = 2
"""How many pieces of a case are computed: behind the second, the past is itself made from wrong values."""

Heads = NDArray[np.float64]
"""(heads, positions, head size)."""


@dataclass(frozen=True, slots=True)
class Attention:
    """One row's attention: what is computed, each field a way in which it may be wrong."""

    query: Array
    key: Array
    value: Array
    heads: int
    cuts: tuple[tuple[int, int], ...]
    """Start and stop of each piece that is fed."""
    past: tuple[Array, Array] | None = None
    """Keys and values that stand for the past, where they are not the row's own."""
    scale_power: float = -0.5
    visible: Callable[[NDArray[np.int64], NDArray[np.int64], int], NDArray[np.bool_]] | None = None
    """Which keys (second) a query (first) sees, by position, given where the piece starts."""
    softmax_axis: int = -1
    interleaved: bool = False
    without_past: bool = False
    new_first: bool = False
    sink: bool = False
    """Whether a key that is not there, of score 0, takes its share."""

    def run(self) -> Array:
        """What the output projection reads, (positions, width)."""
        pieces = [self._piece(start, stop) for start, stop in self.cuts[:_PIECES]]
        return np.concatenate(pieces)

    def _piece(self, start: int, stop: int) -> Array:
        past_key, past_value = self.past or (self.key, self.value)
        first = start if self.without_past else 0
        places = np.arange(first, stop)
        key = np.concatenate([past_key[first:start], self.key[start:stop]])
        value = np.concatenate([past_value[first:start], self.value[start:stop]])
        if self.new_first:
            order = _fed_order(self.cuts, stop)
            key, value = self.key[order], self.value[order]
        queries = np.arange(start, stop)
        query, key_h, value_h = (self._split(x) for x in (self.query[start:stop], key, value))
        scores = query @ key_h.transpose(0, 2, 1) * query.shape[2] ** self.scale_power
        visible = self.visible or causal
        scores = np.where(visible(queries[:, None], places[None, :], start), scores, scores + _HIDDEN)
        largest = scores.max(axis=self.softmax_axis, keepdims=True)
        weights = np.exp(scores - largest)
        weights /= weights.sum(axis=self.softmax_axis, keepdims=True) + (np.exp(-largest) if self.sink else 0.0)
        mixed: Array = (weights @ value_h).transpose(1, 0, 2).reshape(stop - start, -1)
        return mixed

    def _split(self, x: Array) -> Heads:
        double: NDArray[np.float64] = x.astype(np.float64)
        if self.interleaved:
            return double.reshape(len(x), -1, self.heads).transpose(2, 0, 1)
        return double.reshape(len(x), self.heads, -1).transpose(1, 0, 2)


def causal(query: NDArray[np.int64], key: NDArray[np.int64], _start: int) -> NDArray[np.bool_]:
    """A query sees what is not behind it."""
    return key <= query


def attention_cause(evidence: Evidence) -> str:
    """The wrong attention that gives the graph's values, or what of the case goes wrong where none does."""
    anchor = evidence.anchor
    if anchor.part != "attention" or anchor.end != "input":
        return ""
    projections = _projections(evidence, anchor)
    whole = evidence.case.mask.all(axis=1)
    if projections is not None and whole.any():
        rows = list(_rows(evidence, projections))
        heads = _heads(evidence, rows)
        if heads and (words := _best(evidence, rows, heads)):
            return words
    return rotary_cause(evidence) or _where(evidence)


def _best(evidence: Evidence, rows: list[tuple[slice, Attention]], heads: int) -> str:
    tried: dict[str, float] = {}
    for words, change in _wrong_ways(evidence, rows, heads):
        try:
            error = max(
                float(np.abs(evidence.got[at] - change(replace(attention, heads=heads), part).run()).max())
                for at, (part, attention) in zip(_shown(rows), rows, strict=True)
            )
        except (ValueError, IndexError):  # that way does not fit these sizes
            continue
        tried[words] = error if np.isfinite(error) else math.inf
    least = min(tried.values(), default=math.inf)
    deviation = max(float(np.abs(evidence.got[at] - evidence.wanted[at]).max()) for at in _shown(rows))
    if least > EXPLAINED * deviation:
        return ""
    return next(words for words, error in tried.items() if error <= 2 * least)  # of equals, the likelier


_Change = Callable[[Attention, slice], Attention]


def _wrong_ways(evidence: Evidence, rows: list[tuple[slice, Attention]], heads: int) -> Iterator[tuple[str, _Change]]:
    yield "the past is ignored", lambda a, _: replace(a, without_past=True)
    yield "past and new keys are joined in the wrong order", lambda a, _: replace(a, new_first=True)
    yield "the scale 1/sqrt(d) of the scores is left out", lambda a, _: replace(a, scale_power=0.0)
    yield "the scores are scaled by 1/d, not by 1/sqrt(d)", lambda a, _: replace(a, scale_power=-1.0)
    yield "no causal mask: every query sees all keys", lambda a, _: replace(a, visible=lambda q, k, _s: k < q + 10**9)
    yield "the causal mask is off by one: a query sees one token too far", _masked(lambda q, k, _s: k <= q + 1)
    yield "the causal mask is off by one: a query does not see its own token", _masked(lambda q, k, _s: k < q)
    yield "the causal mask does not count the past", _masked(lambda q, k, s: k <= q - s)
    yield "the causal mask is the wrong way around", _masked(lambda q, k, _s: k >= q)
    yield "query and key are swapped, W_query with W_key", lambda a, _: replace(a, query=a.key, key=a.query)
    yield "key and value are swapped, W_key with W_value", lambda a, _: replace(a, key=a.value, value=a.key)
    yield "the heads are interleaved: columns are split as (d, heads)", lambda a, _: replace(a, interleaved=True)
    yield "the softmax runs over the queries, not over the keys", lambda a, _: replace(a, softmax_axis=-2)
    yield "a sink of score 0 takes part of the attention", lambda a, _: replace(a, sink=True)
    for window in _WINDOWS:
        yield f"a query sees a window of the last {window} keys alone", _masked(_window(window))
    width = rows[0][1].query.shape[1]
    for other in (n for n in range(1, width + 1) if width % n == 0 and n != heads):
        yield f"the heads are {other}, not {heads}", _with_heads(other)
    for layer, key, value in _other_layers(evidence):
        words = f"that is joined is that of layer {layer}: caches are swapped"
        yield f"the past {words}", _with_past(key, value)
        yield f"the past key {words}", _with_past(key, None)
        yield f"the past value {words}", _with_past(None, value)


def _masked(visible: Callable[[NDArray[np.int64], NDArray[np.int64], int], NDArray[np.bool_]]) -> _Change:
    return lambda attention, _: replace(attention, visible=visible)


def _window(size: int) -> Callable[[NDArray[np.int64], NDArray[np.int64], int], NDArray[np.bool_]]:
    return lambda query, key, _start: (key <= query) & (key > query - size)


def _with_past(key: Array | None, value: Array | None) -> _Change:
    """The past of another layer, in the keys, the values, or both."""
    return lambda attention, part: replace(
        attention,
        past=(attention.key if key is None else key[part], attention.value if value is None else value[part]),
    )


def _shown(rows: list[tuple[slice, Attention]]) -> list[slice]:
    """Of each row's places, those that `Attention.run` computes."""
    return [slice(part.start, part.start + attention.cuts[:_PIECES][-1][1]) for part, attention in rows]


def _with_heads(heads: int) -> _Change:
    return lambda attention, _: replace(attention, heads=heads)


def _projections(evidence: Evidence, anchor: Anchor) -> tuple[Array, Array, Array] | None:
    """Eager's queries, keys and values of the layer, from three modules or from one that is fused."""
    return _of_attention(evidence, anchor.modules[0].rpartition(".")[0])


def _of_attention(evidence: Evidence, block: str) -> tuple[Array, Array, Array] | None:
    names = ("W_query", "W_key", "W_value")
    apart = [evidence.expected.get((f"{block}.{name}", "output")) for name in names]
    if all(array is not None for array in apart):
        query, key, value = (array for array in apart if array is not None)
        return query, key, value
    fused = evidence.expected.get((f"{block}.c_attn", "output"))
    if fused is None or fused.shape[1] % 3:
        return None
    query, key, value = np.split(fused, 3, axis=1)
    return query, key, value


def _other_layers(evidence: Evidence) -> Iterator[tuple[int, Array, Array]]:
    own = evidence.anchor.modules[0].rpartition(".")[0]
    blocks = dict.fromkeys(
        (anchor.layer, anchor.modules[0].rpartition(".")[0])
        for anchor in evidence.anchors
        if anchor.part == "attention" and anchor.end == "output" and "norm" not in anchor.modules[0]
    )
    for layer, block in blocks:
        projections = _of_attention(evidence, block) if block != own and layer is not None else None
        if projections is not None and layer is not None:
            yield layer, projections[1], projections[2]


def _rows(evidence: Evidence, projections: tuple[Array, Array, Array]) -> Iterator[tuple[slice, Attention]]:
    """The rows without padding, and their places among the positions."""
    start = 0
    for mask in evidence.case.mask:
        stop = start + int(mask.sum())
        if mask.all():
            part = slice(start, stop)
            query, key, value = (array[part] for array in projections)
            yield part, Attention(query, key, value, 1, tuple(evidence.case.cuts()))
        start = stop


def _heads(evidence: Evidence, rows: list[tuple[slice, Attention]]) -> int | None:
    """The number of heads with which a right attention gives eager's values; None if none does."""
    part, attention = max(rows, key=lambda row: row[0].stop - row[0].start)
    wanted = evidence.wanted[part]
    width = attention.query.shape[1]
    scale = float(np.abs(wanted).max()) or 1.0
    errors = {}
    for heads in (n for n in range(1, width + 1) if width % n == 0):
        whole = replace(attention, heads=heads, cuts=((0, len(attention.query)),))
        errors[heads] = float(np.abs(whole.run() - wanted).max())
    best = min(errors, key=errors.__getitem__)
    return best if errors[best] <= 1e-3 * scale else None


def _fed_order(cuts: tuple[tuple[int, int], ...], stop: int) -> NDArray[np.int64]:
    """The order of positions in a cache that puts what is new before what is past, after the piece that ends there."""
    order: list[int] = []
    for start, end in cuts:
        if end > stop:
            break
        order = [*range(start, end), *order]
    return np.array(order)


def _where(evidence: Evidence) -> str:
    """What the wrong positions have in common."""
    limit = 1e-4 * (float(np.abs(evidence.wanted).max()) or 1.0)
    wrong = np.any(np.abs(evidence.got - evidence.wanted) > limit, axis=1)
    rows, places = np.nonzero(evidence.case.mask)
    padded = np.any(evidence.case.mask == 0, axis=1)
    if padded.any() and wrong.any() and padded[rows[wrong]].all():
        return "padding is not masked: only rows with padding are wrong"
    cuts = evidence.case.cuts()
    if len(cuts) > 1 and wrong.any() and (places[wrong] >= cuts[0][1]).all():
        return "the past: it is ignored, joined in another order, or masked wrongly; what has no past is right"
    return ""
