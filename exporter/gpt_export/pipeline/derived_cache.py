"""A source and its plain graph, with a cache where one can be derived."""

from __future__ import annotations

import dataclasses
import logging
from functools import partial

import onnx_ir as ir

from gpt_export.passes.cache import CacheRefusedError, derive_cache
from gpt_export.passes.cache.last_rows import score_every_position
from gpt_export.runtime.signature import CacheShape
from gpt_export.sources.source import Source
from gpt_export.weights.numbers import numbers_of

logger = logging.getLogger(__name__)


def with_derived_cache(source: Source, model: ir.Model) -> tuple[Source, ir.Model]:
    """`source` and `model` with a cache, or as they were, with a note on why there is none.

    A cached graph scores every position that it is fed, those of modules that score the last one alone included.
    Where the cached graph is the plain one only up to some length, the context ends there, and a note says so.

    Args:
        model: the plain graph as a road made it.
    """
    head = source.answers
    if head.of != "tokens" or head.positions == "none":
        return source, model
    plain = model
    if head.positions == "last":
        plain = model.clone()
        if not score_every_position(plain):
            note = "the graph has no cache: where it picks the last position is not found"
            return dataclasses.replace(source, notes=(*source.notes, note)), model
    numbers = {name: partial(numbers_of, tensor) for name, tensor in source.weights.items()}
    try:
        found = derive_cache(plain, numbers)
    except CacheRefusedError as error:
        logger.info("no cache: %s", error)
        return dataclasses.replace(source, notes=(*source.notes, f"the graph has no cache: {error}")), model
    source = dataclasses.replace(source, cache=CacheShape(found.layers), turns=found.turns)
    if found.longest is not None and found.longest < source.context_length:
        note = (
            f"the context ends at {found.longest} instead of {source.context_length}: beyond it the module computes "
            "what it has read before in another way, which a cache cannot; --no-cache keeps it all"
        )
        source = dataclasses.replace(source, context_length=found.longest, notes=(*source.notes, note))
    return source, found.model
