"""Activations, in whatever operators they are written, become one operator each, with the bias in front of them.

Formulas: Hendrycks & Gimpel, arXiv:1606.08415 (GELU); Ramachandran et al., arXiv:1710.05941 (SiLU). Operators:
onnxruntime's contrib operator documentation.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import Tensor

from gpt_export.passes.building import CONTRIB, is_bias, name_outputs
from gpt_export.passes.fused.dataflow import ELEMENTWISE, Dataflow
from gpt_export.passes.fused.evaluation import Evaluator, UnknownValueError
from gpt_export.passes.fused.facts import ACTIVATIONS, set_found

logger = logging.getLogger(__name__)
Array = np.ndarray
_ANCHORS = frozenset({"Tanh", "Erf", "Sigmoid", "Gelu", "Softplus"})
_GRID = np.linspace(-9, 9, 241, dtype=np.float32).reshape(1, 1, -1)
_CLOSE = 2e-6
_QUICK = 1.702


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def _erf(x: Array) -> Array:
    return np.asarray(np.vectorize(math.erf)(x))


_FORMULAS: Mapping[str, Callable[[Array], Array]] = {
    "QuickGelu 1": lambda x: x * _sigmoid(x),
    f"QuickGelu {_QUICK}": lambda x: x * _sigmoid(_QUICK * x),
    "FastGelu": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "Gelu": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
}
"""What onnxruntime's operators compute; a number is QuickGelu's alpha, which at 1 makes it SiLU."""


class FuseActivations(InPlacePass):
    """Finds activations by what they make of numbers: tanh GELU becomes FastGelu, erf GELU Gelu, SiLU QuickGelu.

    A bias in front goes into FastGelu, and with erf GELU into BiasGelu.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._weights = weights

    def call(self, model: ir.Model) -> PassResult:
        graph, flow = model.graph, Dataflow(model.graph)
        evaluate = Evaluator(model, self._weights)
        found: dict[ir.Value, tuple[str, ir.Value]] = {}
        for node in graph:
            if node.op_type in _ANCHORS and not node.domain and (start := node.inputs[0]) is not None and start in flow:
                for x in flow.gates(start, _is_scalar_map):
                    if match := _match(flow, evaluate, x):
                        found[match[1]] = (match[0], x)
                        break
        for y, (kind, x) in found.items():
            _rewrite(graph, kind, x, y)
        if found:
            model.opset_imports.setdefault(CONTRIB, 1)
            logger.info("fused %d activations", len(found))
        RemoveUnusedNodesPass()(model)
        set_found(model, "activations", ACTIVATIONS)
        return PassResult(model, modified=bool(found))


def _is_scalar_map(node: ir.Node) -> bool:
    """Whether `node` computes each number from one number, constants of one number aside."""
    if node.domain or node.op_type not in ELEMENTWISE | {"Gelu"}:
        return False
    constants = [tensor for value in node.inputs if value is not None and (tensor := _constant(value)) is not None]
    return all(tensor.size == 1 for tensor in constants) and not any(is_bias(value) for value in node.inputs)


def _constant(value: ir.Value) -> Array | None:
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def _match(flow: Dataflow, evaluate: Evaluator, x: ir.Value) -> tuple[str, ir.Value] | None:
    """The operator that computes the last function of `x` which one does, and that function."""
    values = flow.functions_of(x, lambda node: _is_scalar_map(node) and not flow.varies_beside_data(node))[1:]
    try:
        arrays = evaluate(values, {x: _GRID}) if values else []
    except UnknownValueError:
        return None
    for value, array in reversed(list(zip(values, arrays, strict=True))):
        for kind, formula in _FORMULAS.items():
            wanted = formula(_GRID.astype(np.float64))
            if array.shape == wanted.shape and np.abs(array - wanted).max() <= _CLOSE * np.abs(wanted).max():
                return kind, value
    return None


def _rewrite(graph: ir.Graph, kind: str, x: ir.Value, y: ir.Value) -> None:
    op_type, _, alpha = kind.partition(" ")
    add = x.producer()
    bias = None
    if op_type != "QuickGelu" and add is not None and add.op_type == "Add":
        bias = next((value for value in add.inputs if is_bias(value)), None)
    if bias is not None and add is not None:
        x = next(value for value in add.inputs if value is not None and value is not bias)
        op_type = "BiasGelu" if op_type == "Gelu" else op_type
    fused = ir.node(
        op_type,
        [x, *([bias] if bias is not None else [])],
        attributes={"alpha": float(alpha)} if alpha else {},
        domain=CONTRIB,
        name=f"{y.name}/activation",
    )
    before = y.producer()
    assert before is not None
    graph.insert_before(before, [name_outputs(fused)])
    y.replace_all_uses_with(fused.outputs[0])
