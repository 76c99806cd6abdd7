"""What the sizes of data are made of: batch, new, past and all tokens, or constants."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from gpt_export.passes.fused.dataflow import Dataflow
from gpt_export.passes.fused.evaluation import Evaluator
from gpt_export.passes.fused.probes import Probe

Array = np.ndarray
_FACTORS = ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (1, 1, 0, 0), (1, 0, 0, 1))
"""Exponents of batch, new, past and total in a dim: one of them, or the batch folded into the tokens."""
_OTHER = Probe(3, 4, 7)


class SizesOfData:
    """The shapes that a graph reads off its data, known for any sizes without running what they are read off.

    Each dim is looked at for two texts: what is the batch of both is the batch, what stays is a constant.
    """

    def __init__(self, graph: ir.Graph, flow: Dataflow) -> None:
        self._graph = graph
        self._read = [
            node
            for node in graph
            if node.op_type == "Shape" and (value := node.inputs[0]) is not None and value in flow and value.producer()
        ]
        self._known: dict[ir.Node, list[tuple[int, tuple[int, ...] | None]]] = {}
        self._shapes: dict[ir.Value, tuple[int, ...]] = {}

    def learn(self, evaluate: Evaluator, probe: Probe, more: Iterable[ir.Value]) -> None:
        """Runs the shapes of the graph at two sizes, those of `more` among them.

        Raises:
            UnknownValueError: it does not run.
        """
        read = [node.inputs[0] for node in self._read if node.inputs[0] is not None]
        self._shapes = evaluate.shapes([*read, *more], probe.inputs(self._graph))
        other = evaluate.shapes(read, _OTHER.inputs(self._graph))
        for node in self._read:
            value = node.inputs[0]
            assert value is not None
            dims = [_dim(one, two, probe, _OTHER) for one, two in zip(self._shapes[value], other[value], strict=True)]
            if all(dim is not None for dim in dims):
                self._known[node] = [dim for dim in dims if dim is not None]

    def shape(self, value: ir.Value) -> tuple[int, ...]:
        """The shape of a value of `more` at the first of the two sizes."""
        return self._shapes[value]

    def at(self, probe: Probe) -> dict[ir.Value, Array]:
        """int64, the output of every Shape of data, at the sizes of `probe`."""
        sizes = (probe.batch, probe.new, probe.past, probe.total)
        found = {}
        for node, dims in self._known.items():
            shape = [
                number if factors is None else int(np.prod([s for s, e in zip(sizes, factors, strict=True) if e]))
                for number, factors in dims
            ]
            start = node.attributes.get_int("start", 0)
            end = node.attributes.get_int("end", len(shape))
            found[node.outputs[0]] = np.array(shape[start:end], np.int64)
        return found


def _dim(one: int, two: int, at: Probe, then: Probe) -> tuple[int, tuple[int, ...] | None] | None:
    """A constant, or the exponents of what a dim is a product of; None if it is neither."""
    if one == two:
        return one, None
    for factors in _FACTORS:
        sizes = [
            int(np.prod([s for s, e in zip((p.batch, p.new, p.past, p.total), factors, strict=True) if e]))
            for p in (at, then)
        ]
        if sizes == [one, two]:
            return 0, factors
    return None
