"""Values of what depends on positions alone, at any sizes: ONNX's reference operators, node by node.

Weights have no data here. Those whose values the caller knows are used; others are given seeded random numbers, which
is enough to see whether a table changes with the length, and never enough to see whether a mask is causal.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator
from onnx.reference.ops import load_op

from gpt_export.passes.cache.axes import Sizes
from gpt_export.passes.cache.facts import Fact
from gpt_export.passes.cache.refusal import refuse
from gpt_export.weights.layout import layout_of

Array = np.ndarray[Any, Any]
_LONG = 64


class Evaluator:
    """Arrays of values by sizes; each is computed once.

    Args:
        facts: of values of data, whose shapes a Shape may ask for.
        weights: arrays by the name of the source, of those weights whose numbers are known.
    """

    def __init__(self, facts: Mapping[ir.Value, Fact], weights: Mapping[str, Callable[[], Array]], opset: int) -> None:
        self._facts = facts
        self._weights = weights
        self._opset = opset
        self._known: dict[Sizes, dict[ir.Value, Array]] = {}
        self._operators: dict[object, Callable[[list[Array | None]], Any]] = {}
        self.unknown: set[ir.Value] = set()
        """Weights that were given random numbers."""

    def array(self, value: ir.Value, sizes: Sizes, given: dict[ir.Value, Array] | None = None) -> Array:
        """The array of `value`.

        Args:
            given: arrays of values that stand for themselves; what depends on them is added to it.

        Raises:
            CacheRefusedError: an operator on the way cannot be evaluated.
        """
        known = self._known.setdefault(sizes, {})
        stack = [value]
        while stack:
            top = stack[-1]
            if top in known or (given is not None and top in given):
                stack.pop()
                continue
            missing = [] if self._asks_for_known_shape(top) else self._missing(top, known, given)
            if missing:
                stack.extend(missing)
                continue
            self._compute(top, sizes, known, given)
            stack.pop()
        return given[value] if given is not None and value in given else known[value]

    def forget_large(self, sizes: Sizes) -> None:
        """Lets arrays of long texts go."""
        if sizes.length > _LONG:
            self._known.pop(sizes, None)

    def _missing(
        self, value: ir.Value, known: Mapping[ir.Value, Array], given: Mapping[ir.Value, Array] | None
    ) -> list[ir.Value]:
        node = value.producer()
        inputs = [] if node is None else [each for each in node.inputs if each is not None]
        return [each for each in inputs if each not in known and (given is None or each not in given)]

    def _compute(
        self, value: ir.Value, sizes: Sizes, known: dict[ir.Value, Array], given: dict[ir.Value, Array] | None
    ) -> None:
        node = value.producer()
        if node is None:
            known[value] = self._leaf(value, sizes)
            return
        read = [each for each in node.inputs if each is not None]
        varies = given is not None and any(each in given for each in read)
        into = given if varies and given is not None and node.op_type != "Shape" else known
        if self._asks_for_known_shape(value):
            results: list[Array] = [self._shape(node, read[0], sizes)]
        else:
            arrays = [
                None if each is None else given[each] if given is not None and each in given else known[each]
                for each in node.inputs
            ]
            results = self.run(node, arrays)
        for output, result in zip(node.outputs, results, strict=False):
            into[output] = np.asarray(result)

    def run(self, node: ir.Node, inputs: list[Array | None]) -> list[Array]:
        """What `node` gives for `inputs`.

        Raises:
            CacheRefusedError: ONNX's reference evaluator cannot run it.
        """
        if node.op_type == "Constant":
            return [_constant(node)]
        if any(attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values()):
            raise refuse(node, "loops or branches, and what it gives depends on positions")
        key = kind_of(node)
        if key not in self._operators:
            try:
                self._operators[key] = _operator(node, self._opset)
            except Exception as error:  # load_op raises several kinds for what it does not know
                raise refuse(node, "cannot be evaluated, and what it gives depends on positions") from error
        while inputs and inputs[-1] is None:
            inputs = inputs[:-1]
        try:
            with np.errstate(all="ignore"):
                return list(self._operators[key](inputs))
        except Exception as error:
            raise refuse(node, f"cannot be evaluated ({type(error).__name__}: {error})") from error

    def _asks_for_known_shape(self, value: ir.Value) -> bool:
        node = value.producer()
        return node is not None and node.op_type == "Shape" and node.inputs[0] in self._facts

    def _shape(self, node: ir.Node, of: ir.Value, sizes: Sizes) -> Array:
        start, end = (node.attributes.get(name) for name in ("start", "end"))
        shape = sizes.shape(self._facts[of].axes)
        return np.array(shape[slice(start.as_int() if start else 0, end.as_int() if end else None)], np.int64)

    def _leaf(self, value: ir.Value, sizes: Sizes) -> Array:
        if value.const_value is not None:
            return value.const_value.numpy()
        shape = sizes.shape(self._facts[value].axes)
        layout = layout_of(value)
        name = layout.sources[0] if layout and len(layout.sources) == 1 else ""
        if name in self._weights:
            array = self._weights[name]()
            return array if array.shape == shape else np.stack((array.real, array.imag), axis=-1)  # complex
        self.unknown.add(value)
        assert value.dtype is not None
        kind = value.dtype.numpy()
        random = np.random.default_rng(zlib.crc32(str(value.name).encode()))
        if np.issubdtype(kind, np.floating):
            return random.standard_normal(shape).astype(kind)
        return np.zeros(shape, kind)


def _constant(node: ir.Node) -> Array:
    """The number or the tensor of a Constant."""
    tensor = ir.convenience.get_const_tensor(node.outputs[0])
    assert tensor is not None
    return tensor.numpy()


def kind_of(node: ir.Node) -> object:
    """What tells operators apart: equal ones are made once."""
    attributes = tuple(sorted((name, _plain(attr.value)) for name, attr in node.attributes.items()))
    return node.domain, node.op_type, attributes, tuple(value is None for value in node.inputs), len(node.outputs)


def _plain(value: object) -> str:
    return repr(value.numpy().tolist()) + str(value.dtype) if isinstance(value, ir.TensorProtocol) else repr(value)


def _operator(node: ir.Node, opset: int) -> Callable[[list[Array | None]], Any]:
    """A function that runs `node`, made once."""
    inputs = [ir.Value(name=None if each is None else f"i{k}") for k, each in enumerate(node.inputs)]
    copy = ir.Node(
        node.domain,
        node.op_type,
        [given if each is not None else None for given, each in zip(inputs, node.inputs, strict=True)],
        list(node.attributes.values()),
        outputs=[ir.Value(name=f"o{k}") for k in range(len(node.outputs))],
    )
    proto: onnx.NodeProto = ir.to_proto(copy)
    try:
        made = load_op(node.domain, node.op_type, opset)(proto, _RUN)
    except Exception:  # operators that are functions of others need a whole evaluator
        used = [name for name in proto.input if name]
        graph = onnx.helper.make_graph(
            [proto],
            "one",
            [onnx.ValueInfoProto(name=n) for n in used],
            [onnx.ValueInfoProto(name=n) for n in proto.output],
        )
        whole = ReferenceEvaluator(
            onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid(node.domain, opset)])
        )
        return lambda arrays: whole.run(None, dict(zip(used, [a for a in arrays if a is not None], strict=False)))
    return lambda arrays: made.run(*arrays)


_RUN: dict[str, Any] = {
    "log": lambda *_: None,
    "opsets": {"": 20},
    "verbose": 0,
    "new_ops": None,
    "existing_functions": None,
    "evaluator_cls": ReferenceEvaluator,
}
