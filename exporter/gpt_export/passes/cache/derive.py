"""From a plain graph to one with a cache: normalise, interpret, cut, check, write."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from gpt_export.passes.cache.attentions import find_attentions
from gpt_export.passes.cache.axes import BATCH, ROWS, is_constant
from gpt_export.passes.cache.checks import plan_attentions
from gpt_export.passes.cache.emission import Emitter
from gpt_export.passes.cache.interpreter import Meaning, interpret
from gpt_export.passes.cache.lengths import LONGEST
from gpt_export.passes.cache.normal_form import normalise
from gpt_export.passes.cache.pairs import pair_up
from gpt_export.passes.cache.refusal import CacheRefusedError
from gpt_export.passes.cache.tables import check_tables, position_uses
from gpt_export.passes.cache.turns import find_turns
from gpt_export.runtime.signature import LayerCache

logger = logging.getLogger(__name__)
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivedCache:
    """The cached graph, and what was found on the way to it."""

    model: ir.Model
    layers: tuple[LayerCache, ...]
    longest: int | None
    """The length up to which the cached graph is the plain one; None where nothing was found to change."""
    turns: tuple[int, ...] = ()
    """Lengths within which it is the plain one too, but at which attention does something new: see `turns.py`."""


def derive_cache(
    model: ir.Model,
    weights: Mapping[str, Callable[[], Array]] | None = None,
    *,
    context_length: int | None = None,
) -> DerivedCache:
    """The graph of `model` with a cache; `model` is left as it was.

    Args:
        model: `input_ids` int64 (batch, sequence), then weights without data, to `logits`.
        weights: how to get the numbers of small weights by their source's name, where a mask or a table is one.
        context_length: the length up to which the cached graph must be the plain one; None leaves `longest` to the
            caller.

    Raises:
        CacheRefusedError: the graph mixes positions in a way that the pass does not know; the message says where.
    """
    _check_types(model.graph)
    model = model.clone()
    normalise(model)
    longest = LONGEST if context_length is None else context_length + 1
    meaning = interpret(model.graph, weights or {}, model.graph.opset_imports[""], longest)
    _check_output(meaning, model.graph.outputs[0])
    attentions = find_attentions(meaning, model.graph)
    if not attentions:
        raise CacheRefusedError("no cache is derived, because no operator of the graph looks at other positions")
    uses = position_uses(meaning)
    limit = check_tables(meaning, uses, context_length)
    plans = plan_attentions(meaning, attentions, uses)
    pairs = pair_up(attentions)
    inputs, outputs, nodes = Emitter(model.graph, meaning, plans, pairs).run()
    graph = ir.Graph(
        [value for value in inputs if value.const_value is None],
        outputs,
        nodes=nodes,
        initializers=[value for value in inputs if value.const_value is not None],
        opset_imports=model.graph.opset_imports,
        name=model.graph.name,
    )
    derived = ir.Model(graph, ir_version=model.ir_version, functions=list(model.functions.values()))
    layers = tuple(pair.shape() for pair in pairs)
    logger.info("derived a cache of %d layers, %d nodes to %d", len(layers), len(model.graph), len(graph))
    turns = find_turns(meaning, plans, uses)
    return DerivedCache(model=derived, layers=layers, longest=limit, turns=turns)


def _check_output(meaning: Meaning, logits: ir.Value) -> None:
    fact = meaning.facts.get(logits)
    axes = () if fact is None or fact.depends != "data" else fact.axes
    if len(axes) != 3 or axes[:2] != ((BATCH,), (ROWS,)) or not is_constant(axes[2]):
        raise CacheRefusedError(
            "no cache is derived, because the output is not a row of logits for each token, as classes of texts are not"
        )


def _check_types(graph: ir.Graph) -> None:
    for value in graph.inputs:
        if value.dtype is not None and value.dtype.is_floating_point() and value.dtype != ir.DataType.FLOAT:
            raise CacheRefusedError(
                f"no cache is derived, because the weight {value.name} is {value.dtype.name.lower()}; "
                "a cache is derived in float32"
            )
