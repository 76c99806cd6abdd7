"""A graph run piece by piece on many batches, so that its weights can change between the pieces."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper

from gpt_export.weights.layout import layout_of
from gpt_export.weights.quantize.parallel import Each

Array = NDArray[Any]
Batch = dict[ir.Value, Array]


class SegmentedRun:
    """Holds, for each batch, the values that nodes not yet run will read; every node runs once.

    Args:
        graph: its weights are inputs with a layout.
        feeds: for each batch, every other input of the graph, by name.
        weight: the numbers of a weight as the graph has it, asked for when a node that reads it runs.
        each: runs the batches; each of them takes one thread, so that their number decides no bit.
    """

    def __init__(
        self,
        graph: ir.Graph,
        feeds: Sequence[Mapping[str, Array]],
        weight: Callable[[ir.Value], Array],
        each: Each,
    ) -> None:
        self._graph, self._each = graph, each
        self._weight = weight
        self._opsets = [helper.make_opsetid(domain, version) for domain, version in graph.opset_imports.items()]
        inputs = {value.name: value for value in graph.inputs if layout_of(value) is None}
        self._batches: list[Batch] = [{inputs[name]: array for name, array in feed.items()} for feed in feeds]
        self._constants = {
            value: value.const_value.numpy()
            for value in graph.initializers.values()
            if value.const_value is not None and value not in self._batches[0]
        }
        self._done: set[ir.Node] = set()

    def values(self, wanted: ir.Value) -> list[Array]:
        """What `wanted` is in each batch. Whatever it depends on and has not run yet runs now."""
        return self.several([wanted])[0]

    def several(self, wanted: Sequence[ir.Value]) -> list[list[Array]]:
        """`values` of each of `wanted`, where one node may give several of them."""
        nodes = self._missing(wanted)
        if nodes:
            self._run(nodes, frozenset(wanted))
        return [[batch[value] for batch in self._batches] for value in wanted]

    def _missing(self, wanted: Sequence[ir.Value]) -> list[ir.Node]:
        """The nodes that `wanted` need and that have not run, in the order of the graph."""
        needed: set[ir.Node] = set()
        waiting = list(wanted)
        while waiting:
            value = waiting.pop()
            node = value.producer()
            if node is None or node in needed or value in self._batches[0]:
                continue
            needed.add(node)
            waiting += [each for each in node.inputs if each is not None]
        return [node for node in self._graph if node in needed]

    def _run(self, nodes: list[ir.Node], wanted: Collection[ir.Value]) -> None:
        self._done |= set(nodes)
        made = {value for node in nodes for value in node.outputs}
        kept = [value for value in made if value in wanted or any(r not in self._done for r, _ in value.uses())]
        outputs = sorted(kept, key=lambda value: str(value.name))
        read = {value: None for node in nodes for value in node.inputs if value is not None and value not in made}
        weights = {value: self._weight(value) for value in read if layout_of(value) is not None}
        fixed = weights | {value: self._constants[value] for value in read if value in self._constants}
        moving = [value for value in read if value not in fixed]
        session = self._session(nodes, {**fixed, **{value: self._batches[0][value] for value in moving}}, outputs)
        names = [str(value.name) for value in outputs]
        given = {str(value.name): array for value, array in fixed.items()}

        def run(batch: Batch) -> list[Array]:
            found: list[Array] = session.run(names, given | {str(value.name): batch[value] for value in moving})
            return found

        for batch, found in zip(self._batches, self._each(run, self._batches), strict=True):
            batch.update(zip(outputs, found, strict=True))
            for value in [
                each for each in batch if each not in wanted and all(r in self._done for r, _ in each.uses())
            ]:
                del batch[value]

    def _session(
        self, nodes: list[ir.Node], read: Mapping[ir.Value, Array], outputs: Sequence[ir.Value]
    ) -> ort.InferenceSession:
        """Everything that is read is an input, weights too: so the file stays small, whatever they weigh."""
        inputs = [
            helper.make_tensor_value_info(
                str(value.name), helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim
            )
            for value, array in read.items()
        ]
        made = [onnx.ValueInfoProto(name=str(value.name)) for value in outputs]
        protos = [ir.to_proto(node) for node in nodes]
        graph = helper.make_graph(protos, "segment", inputs, made)
        model = helper.make_model(graph, opset_imports=self._opsets, ir_version=8)
        options: Any = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def feed_of(graph: ir.Graph, ids: NDArray[np.int64]) -> dict[str, Array]:
    """What a whole pass over `ids`, int64 (batch, sequence), is fed, whether the graph has a cache or not."""
    rows, length = ids.shape
    given: dict[str, Array] = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "position_ids": np.broadcast_to(np.arange(length, dtype=np.int64), ids.shape).copy(),
    }
    feed: dict[str, Array] = {}
    for value in graph.inputs:
        name = str(value.name)
        if layout_of(value) is not None or name in graph.initializers:
            continue
        if name in given:
            feed[name] = given[name]
        else:  # a past of no token
            assert value.shape is not None
            assert value.dtype is not None
            heads, width = (int(value.shape[axis]) for axis in (1, 3))  # type: ignore[arg-type]
            feed[name] = np.zeros((rows, heads, 0, width), value.dtype.numpy())
    return feed
