"""Modules to derived graphs, and those graphs in plain onnxruntime, fed as callers feed them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch
from gpt_export.graph.roads import build
from gpt_export.passes.cache import DerivedCache, derive_cache
from gpt_export.passes.cache.last_rows import score_every_position
from gpt_export.runtime.signature import CacheShape, example_sizes
from gpt_export.sources.source import Source, source_of_module
from gpt_export.weights.layout import layout_of
from numpy.typing import NDArray
from onnx import numpy_helper

from tests.zoo import find
from tests.zoo.oracle import logits_of

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]

PIECES = (5, 1, 1, 9, 1, 13)
PADDING = 6


@dataclass(frozen=True, slots=True)
class Derived:
    """A module of the zoo, its source, and its graph with a cache."""

    source: Source
    found: DerivedCache

    def ids(self, rows: int = 2, length: int = sum(PIECES)) -> Ids:
        return np.random.default_rng([rows, length]).integers(0, self.source.vocab_size, (rows, length))

    def eager(self, ids: Ids) -> Floats:
        """The module's own logits at every position."""
        if self.source.head.positions == "all":
            return logits_of(self.source.reference(), ids).astype(np.float32)
        ends = [logits_of(self.source.reference(), ids[:, :end]) for end in range(1, ids.shape[1] + 1)]
        return np.concatenate(ends, axis=1).astype(np.float32)


@functools.cache
def derived(name: str) -> Derived:
    """The animal called `name`, by the road that takes it.

    Raises:
        CacheRefusedError: there is no cache for it.
    """
    animal = find(name)
    source = source_of_module(animal.make(), name=name, record={}, context_length=animal.context)
    built = build(source.skeleton, source.reference, source.signature(), 18, example_sizes(animal.context))
    if source.head.positions == "last":
        assert score_every_position(built.model)
    numbers = {key: (lambda tensor=tensor: tensor.detach().numpy()) for key, tensor in source.weights.items()}
    return Derived(source, derive_cache(built.model, numbers, context_length=animal.context))


def session(model: ir.Model, source: Source) -> onnxruntime.InferenceSession:
    """The graph with its weights in it, opened."""
    proto = ir.to_proto(model)
    for value in model.graph.inputs:
        layout = layout_of(value)
        if layout is not None:
            tensor = source.weights[layout.sources[0]].detach()
            array = (torch.view_as_real(tensor) if tensor.is_complex() else tensor).numpy()
            proto.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), value.name))
    given = {tensor.name for tensor in proto.graph.initializer}
    kept = [value for value in proto.graph.input if value.name not in given]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    onnx.checker.check_model(proto, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(proto.SerializeToString(), options)


def logits(
    of: Derived, ids: Ids, pieces: Sequence[int], mask: Ids | None = None, model: ir.Model | None = None
) -> Floats:
    """The logits of `ids` (B, T), fed in `pieces` behind one another; `model` in place of the derived graph."""
    opened = session(model or of.found.model, of.source)
    mask = np.ones_like(ids) if mask is None else mask
    positions = np.maximum(mask.cumsum(axis=1) - 1, 0)
    shape = CacheShape(of.found.layers)
    past = {name: np.zeros(sizes, np.float32) for name, sizes in shape.empty_shapes(len(ids)).items()}
    taken = {value.name for value in opened.get_inputs()}
    names = [value.name for value in opened.get_outputs()]
    outputs, start = [], 0
    for piece in pieces:
        end = start + piece
        feed = {
            "input_ids": ids[:, start:end],
            "attention_mask": mask[:, :end],
            "position_ids": positions[:, start:end],
        }
        found = dict(zip(names, opened.run(None, {k: v for k, v in (feed | past).items() if k in taken}), strict=True))
        outputs.append(found["logits"])
        past = {past_name: found[now] for past_name, now in zip(shape.past_names(), shape.present_names(), strict=True)}
        start = end
    return np.concatenate(outputs, axis=1)


def off(found: Floats, expected: Floats) -> float:
    """The largest difference, in units of the largest logit."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())
