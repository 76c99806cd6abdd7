"""The facts about one place where a graph attends, each found by running a part of it on numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from gpt_export.passes.fused.attention_sites import NoSiteError, Site, key_gates
from gpt_export.passes.fused.dataflow import Dataflow
from gpt_export.passes.fused.evaluation import Evaluator, UnknownValueError
from gpt_export.passes.fused.forms import Form, form_of
from gpt_export.passes.fused.probes import Probe
from gpt_export.passes.fused.rotation import Rotation, find_rotation, turns_as
from gpt_export.passes.fused.scores import Scores, find_scores
from gpt_export.passes.fused.sizes import SizesOfData
from gpt_export.runtime.signature import POSITION_IDS

Array = np.ndarray
HEAD_MULTIPLE = 8
"""GroupQueryAttention takes heads whose width is a multiple of this."""


@dataclass(frozen=True, slots=True)
class Raw:
    """A value in front of the operator, and how it lies."""

    value: ir.Value
    form: Form


@dataclass(frozen=True, slots=True)
class Reading:
    """What one site computes."""

    site: Site
    heads: int
    kv_heads: int
    head_dim: int
    query: Raw
    key: Raw
    new_value: Raw
    out: Raw
    rotation: Rotation | None
    """What the operator turns; None where the graph does so in front, or nothing turns."""
    turned_in_front: bool
    scores: Scores
    scores_shape: tuple[int, ...]
    """Of the product of queries and keys, at some sizes; the last two axes are new and all tokens."""


class Reader:
    """Reads the sites of one graph.

    Args:
        context_length: the longest text.
    """

    def __init__(self, graph: ir.Graph, flow: Dataflow, evaluate: Evaluator, context_length: int) -> None:
        self._graph, self._flow, self.evaluate, self._context = graph, flow, evaluate, context_length
        total = min(48, context_length)
        new = _unlike(graph, total - total // 4)
        self._probe = Probe(2, total - new, new)
        self._sizes = SizesOfData(graph, flow)

    def shapes(self, sites: list[Site]) -> dict[ir.Value, tuple[int, ...]]:
        """The shapes of all values that reading `sites` asks for.

        Raises:
            UnknownValueError: the graph does not run on its shapes alone.
        """
        wanted = [value for site in sites for value in site.values]
        for site in sites:
            wanted += [value for end in (site.query, site.new_key, site.new_value) for value in self._gates(end)]
        self._sizes.learn(self.evaluate, self._probe, wanted)
        return {value: self._sizes.shape(value) for value in wanted}

    def inputs(self, probe: Probe, positions: Array | None = None) -> dict[ir.Value, Array]:
        """What parts of the graph are run on: the inputs of `probe`, and the sizes of all data at its size."""
        return probe.inputs(self._graph, positions) | self._sizes.at(probe)

    def read(self, site: Site, shapes: Mapping[ir.Value, tuple[int, ...]]) -> Reading:
        """What `site` computes.

        Raises:
            NoSiteError, OtherScoresError: it is nothing that the operator does; the message says what.
            UnknownValueError: a part cannot be run.
        """
        assert site.past_key.shape is not None
        assert site.past_value.shape is not None
        kv, d, value_width = (int(dim) for dim in (*site.past_key.shape[1::2], site.past_value.shape[3]))  # type: ignore[arg-type]
        if d != value_width or d % HEAD_MULTIPLE:
            raise NoSiteError(f"its keys are {d} wide and its values {value_width}")
        probe = self._probe
        heads = int(np.prod(shapes[site.query])) // (probe.batch * probe.new * d)
        if heads < 1 or heads % kv:
            raise NoSiteError(f"it has {heads} heads over {kv} of keys")
        new_value = self._moved(site.new_value, kv, d, shapes)
        query, key, rotation = self._turned(site, heads, kv, d, shapes)
        scores = find_scores(
            self._logits(site, query, (heads, kv, d)),
            lambda x, at: _turned(rotation, x, at, heads, d),
            (heads, kv, d),
            self._context,
        )
        out_form = form_of(shapes[site.outs[-1]], probe.batch, probe.new)
        if out_form is None or out_form.width != heads * d:
            raise NoSiteError(f"what it gives has the shape {list(shapes[site.outs[-1]])}")
        fits = rotation is not None and rotation.width > 0
        return Reading(
            site, heads, kv, d, query, key, new_value, Raw(site.outs[-1], out_form),
            rotation if fits else None, not fits and self._flow.depends_on(key.value, POSITION_IDS), scores,
            shapes[site.scores],
        )  # fmt: skip

    def _gates(self, end: ir.Value) -> list[ir.Value]:
        return key_gates(self._flow, end)

    def _candidates(self, end: ir.Value, width: int, shapes: Mapping[ir.Value, tuple[int, ...]]) -> list[Raw]:
        """The gates of `end` that hold `width` numbers a token, earliest first."""
        found = []
        for value in reversed(self._gates(end)):
            form = form_of(shapes[value], self._probe.batch, self._probe.new)
            if form is not None and form.width == width:
                found.append(Raw(value, form))
        return found

    def _map(self, raw: Raw, end: ir.Value, heads: int, width: int) -> Callable[[Array, Probe, Array], Array]:
        """`raw` to `end` as a function of numbers."""

        def mapped(x: Array, probe: Probe, positions: Array) -> Array:
            given = self.inputs(probe, positions) | {raw.value: raw.form.laid_out(x)}
            (found,) = self.evaluate([end], given)
            return _by_head(found, probe, heads, width)

        return mapped

    def _moved(self, end: ir.Value, heads: int, width: int, shapes: Mapping[ir.Value, tuple[int, ...]]) -> Raw:
        """The earliest value that `end` is but for the order of its axes."""
        rng = np.random.default_rng(3)
        probe = Probe(2, 1, min(6, self._context - 1))
        x = rng.normal(size=(2, probe.new, heads * width)).astype(np.float32)
        for raw in self._candidates(end, heads * width, shapes):
            found = _attempt(self._map(raw, end, heads, width), x, probe, probe.positions)
            if found is not None and np.array_equal(found, np.moveaxis(x.reshape(2, -1, heads, width), 2, 1)):
                return raw
        raise NoSiteError("its values come from nothing of their width")

    def _turned(
        self, site: Site, heads: int, kv: int, d: int, shapes: Mapping[ir.Value, tuple[int, ...]]
    ) -> tuple[Raw, Raw, Rotation | None]:
        """Query and key in front of the same rotation, and it; behind it and None where the operator cannot turn."""
        queries = self._candidates(site.query, heads * d, shapes)
        for key in self._candidates(site.new_key, kv * d, shapes):
            turn = self._map(key, site.new_key, kv, d)
            rotation = _attempt(find_rotation, turn, kv, d, self._context)
            if rotation is None:
                continue
            if not _attempt(turns_as, turn, rotation, kv, d, self._context):
                continue
            for query in queries:
                turn = self._map(query, site.query, heads, d)
                if _attempt(turns_as, turn, rotation, heads, d, self._context):
                    return query, key, rotation
        key, bare = self._candidates(site.new_key, kv * d, shapes)[-1], Rotation(False, 0, np.zeros(0), np.zeros(0))
        for query in queries:  # what is in front of the operator turns, or nothing does
            if _attempt(turns_as, self._map(query, site.query, heads, d), bare, heads, d, self._context):
                return query, key, None
        raise NoSiteError("its queries come from nothing of their width")

    def _logits(self, site: Site, query: Raw, shape: tuple[int, int, int]) -> Callable[[Probe, Array, Array], Array]:
        heads = shape[0]

        def logits(probe: Probe, queries: Array, keys: Array) -> Array:
            given = self.inputs(probe)
            given |= {query.value: query.form.laid_out(queries), site.present_key: keys}
            (found,) = self.evaluate([site.logits], given)
            if found.ndim < 3 or found.shape[-2] != probe.new:
                raise NoSiteError(f"its softmax is of the shape {list(found.shape)}")
            return found.reshape(probe.batch, heads, probe.new, found.shape[-1])

        return logits


def _turned(rotation: Rotation | None, x: Array, probe: Probe, heads: int, width: int) -> Array:
    by_head = np.moveaxis(x.reshape(probe.batch, probe.new, heads, width), 2, 1)
    return rotation.applied(by_head, probe.positions) if rotation is not None and rotation.width else by_head


def _by_head(array: Array, probe: Probe, heads: int, width: int) -> Array:
    """(batch, heads, new, width) of an array that holds these numbers."""
    if array.shape == (probe.batch, heads, probe.new, width):
        return array
    form = form_of(array.shape, probe.batch, probe.new)
    if form is not None and form.order == "tokens":
        return np.moveaxis(array.reshape(probe.batch, probe.new, heads, width), 2, 1)
    return array.reshape(probe.batch, heads, probe.new, width)


def _unlike(graph: ir.Graph, most: int) -> int:
    """The largest number up to `most` that is no size of an input, so that an axis of new tokens is known by it."""
    sizes = {dim for value in graph.inputs if value.shape is not None for dim in value.shape if isinstance(dim, int)}
    return next((number for number in range(most, 2, -1) if number not in sizes), most)


def _attempt(function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function` gives, None where a part of the graph that it asks for does not run on its own."""
    try:
        return function(*arguments)
    except UnknownValueError:
        return None
