"""Runs graphs and eager decoders on the same texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from gpt_export.passes.fused.evaluation import Evaluator
from gpt_export.passes.fused.probes import Probe

from tests.exporter.passes.fused.decoders import VOCAB, Decoder, cache_of

Array = np.ndarray
FEEDS: Mapping[str, Mapping[str, Any]] = {
    "prompt": {"batch": 2, "past": 0, "new": 7, "padded": (0, 0)},
    "padded prompt": {"batch": 2, "past": 0, "new": 9, "padded": (0, 3)},
    "piece": {"batch": 1, "past": 9, "new": 5, "padded": (0,)},
    "padded step": {"batch": 2, "past": 9, "new": 1, "padded": (2, 0)},
    "long step": {"batch": 1, "past": 47, "new": 1, "padded": (0,)},
}
WITHIN = 2e-5
"""Relative to the largest number; 32 bits, two layers."""


def feed(decoder: Decoder, *, batch: int, past: int, new: int, padded: tuple[int, ...]) -> dict[str, Array]:
    """Random ids over a random past."""
    rng = np.random.default_rng(11)
    probe = Probe(batch, past, new, padded)
    shapes = {name: (b, h, past, d) for name, (b, h, _, d) in cache_of(decoder.dialect).empty_shapes(batch).items()}
    cache = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    ids = rng.integers(0, VOCAB, (batch, new))
    return {"input_ids": ids, "attention_mask": probe.mask, "position_ids": probe.positions, **cache}


def eager(decoder: Decoder, given: Mapping[str, Array]) -> dict[str, Array]:
    """Every output of `decoder`, by the names that graphs give them."""
    with torch.no_grad():
        outputs = decoder(*(torch.from_numpy(array) for array in given.values()))
    names = ["logits", *cache_of(decoder.dialect).present_names()]
    return {name: out.numpy() for name, out in zip(names, outputs, strict=True)}


def run(model: ir.Model, decoder: Decoder, given: Mapping[str, Array]) -> dict[str, Array]:
    """Every output of `model`, the decoder's parameters its weights."""
    inputs = {value: given[str(value.name)] for value in model.graph.inputs if value.name in given}
    arrays = Evaluator(model, decoder.state_dict())(list(model.graph.outputs), inputs)
    return {str(value.name): array for value, array in zip(model.graph.outputs, arrays, strict=True)}


def assert_same(found: Mapping[str, Array], wanted: Mapping[str, Array], given: Mapping[str, Array]) -> None:
    """Logits and cache are the same where there is no padding."""
    assert list(found) == list(wanted)
    mask = given["attention_mask"].astype(bool)
    for name, array in wanted.items():
        error = np.abs(found[name] - array)
        error = error[mask[:, -array.shape[1] :]] if name == "logits" else error.transpose(0, 2, 1, 3)[mask]
        assert error.max() <= WITHIN * np.abs(array).max(), name
