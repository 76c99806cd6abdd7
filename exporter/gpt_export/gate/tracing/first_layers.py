"""A long row through the first layers of both worlds alone.

What a graph does at the end of a long context, every layer of a kind does alike: the layers differ in their weights,
and these are compared bit for bit. So the row is followed until a layer of every kind has run, and what stands there
is compared: a few hundredths of what a whole pass over the row costs, and no logits.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gpt_export.gate.case import Case
from gpt_export.gate.noise import in_double
from gpt_export.gate.tracing.activations import Array
from gpt_export.gate.tracing.anchors import End, find_anchors, layer_of
from gpt_export.gate.tracing.layer_kinds import first_of_each_kind
from gpt_export.runtime.options import CPU, session_options
from gpt_export.runtime.signature import ATTENTION_MASK, INPUT_IDS, POSITION_IDS, CacheShape

logger = logging.getLogger(__name__)

LEAST_LAYERS = 2
"""So that what is wrong at one token is seen in others, which attend to it."""
MOST_OF_ALL = 3
"""Where more than one in so many layers would have to be run, nothing is gained by running no more."""


@dataclass(frozen=True, slots=True)
class FirstLayers:
    """The part of a graph that leads to what the first layers leave, and where eager has the same."""

    graph: onnx.ModelProto
    """With that tensor, and the present of these layers, as its outputs."""
    folder: Path
    tensor: str
    module: str
    end: End
    layers: int
    of: int
    cache: Mapping[str, str]
    """By name of a past, that of its present."""
    past_shapes: Mapping[str, tuple[int, int, int, int]]

    def of_graph(self, case: Case) -> Array:
        """What the graph has there, float32 (1, sequence, width), fed as the case says."""
        options = session_options(prepack=False, silent=True, external_data=self.folder)
        session = ort.InferenceSession(self.graph.SerializeToString(), options, providers=list(CPU))
        taken = {value.name for value in session.get_inputs()}
        past: dict[str, Array] = {name: np.zeros(shape, np.float32) for name, shape in self.past_shapes.items()}
        positions = np.arange(case.ids.shape[1])[None]
        parts = []
        for start, stop in case.cuts(cached=bool(past)):
            given = {
                INPUT_IDS: case.ids[:, start:stop],
                ATTENTION_MASK: case.mask[:, :stop],
                POSITION_IDS: positions[:, start:stop],
            }
            inputs = {name: array for name, array in given.items() if name in taken} | past
            found, *present = session.run([self.tensor, *self.cache.values()], inputs)
            parts.append(found)
            past = dict(zip(self.cache, present, strict=True))
        whole: Array = np.concatenate(parts, axis=1)
        return whole

    def of_eager(self, module: nn.Module, ids: NDArray[np.int64]) -> Tensor | None:
        """What eager has there, (1, sequence, width); None where it does not come by."""
        part = dict(module.named_modules(remove_duplicate=False)).get(self.module)
        if part is None:
            return None

        def reached(_part: nn.Module, args: tuple[object, ...], out: object = None) -> None:
            raise _ReachedError(args[0] if self.end == "input" else out)

        handle = part.register_forward_pre_hook(reached) if self.end == "input" else part.register_forward_hook(reached)
        try:
            with torch.no_grad():
                module(torch.from_numpy(ids))
        except _ReachedError as stopped:
            return stopped.value if isinstance(stopped.value, Tensor) else None
        finally:
            handle.remove()
        return None

    def noise_of(self, module: nn.Module, ids: NDArray[np.int64]) -> float | None:
        """Eager's own error there, over the root mean square; None where it does not run in float64."""
        single = self.of_eager(module, ids)
        try:
            with in_double(module):
                double = self.of_eager(module, ids)
        except (RuntimeError, TypeError) as error:
            logger.info("the first layers do not run in float64: %s", error)
            return None
        if single is None or double is None or double.dtype != torch.float64:
            return None
        scale = float(double.square().mean().sqrt())
        return float((single.double() - double).abs().max()) / scale if scale else None


class _ReachedError(Exception):
    """Carries a value out of a module that need not run to its end."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self.value = value


def find_first_layers(
    path: Path, sources: Mapping[str, tuple[str, ...]], cache: CacheShape | None
) -> FirstLayers | None:
    """The first layers of the graph in `path` that have one of every kind; None where too many are needed.

    Args:
        sources: by initializer of the file, the parameters that it holds.
        cache: the cache that the graph has, in float32.
    """
    model = onnx.load(path, load_external_data=False)
    anchors = find_anchors(model.graph, sources)
    kinds, of = first_of_each_kind(model.graph, anchors, sources)
    layers = max(kinds, LEAST_LAYERS)
    if not kinds or layers * MOST_OF_ALL > of:
        return None
    anchor = next(anchor for anchor in anchors if layer_of(anchor.modules[0]) == layers)
    if len(anchor.modules) > 1:
        return None
    shapes = cache.empty_shapes(1) if cache else {}
    presents = dict(zip(shapes, cache.present_names(), strict=True)) if cache else {}
    needed = _needed(model.graph, {anchor.tensor})
    kept = {past: present for past, present in presents.items() if past in needed}
    _cut(model.graph, [anchor.tensor, *kept.values()])
    past_shapes = {name: shapes[name] for name in kept}
    return FirstLayers(model, path.parent, anchor.tensor, anchor.modules[0], anchor.end, layers, of, kept, past_shapes)


def _needed(graph: onnx.GraphProto, tensors: set[str]) -> set[str]:
    """The names of everything that leads to `tensors`."""
    needed = set(tensors)
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
    return needed


def _cut(graph: onnx.GraphProto, outputs: list[str]) -> None:
    """Leaves of the graph what leads to `outputs`."""
    needed = _needed(graph, set(outputs))
    nodes = [node for node in graph.node if needed.intersection(node.output)]
    initializers = [tensor for tensor in graph.initializer if tensor.name in needed]
    overridable = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name in needed or value.name in overridable & needed]
    for field, kept in ((graph.node, nodes), (graph.initializer, initializers), (graph.input, inputs)):
        held = [type(item).FromString(item.SerializeToString()) for item in kept]
        del field[:]
        field.extend(held)
    del graph.output[:]
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
