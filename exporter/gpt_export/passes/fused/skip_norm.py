"""A residual sum and the norm behind it become one operator, the bias in front of it included."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult
from torch import Tensor

from gpt_export.passes.building import CONTRIB, is_bias, name_outputs
from gpt_export.passes.fused.dataflow import Dataflow
from gpt_export.passes.fused.evaluation import Evaluator, UnknownValueError
from gpt_export.passes.fused.norms import RMS_NORM
from gpt_export.passes.fused.probes import Probe
from gpt_export.weights.layout import layout_of

logger = logging.getLogger(__name__)
_WITH_SUM = {"LayerNormalization": "SkipLayerNormalization", RMS_NORM: "SkipSimplifiedLayerNormalization"}
_PROBE = Probe(2, 0, 3)
_AXES = 3


class FuseSkipNorms(InPlacePass):
    """`norm(x + (y + bias))` to an operator that hands out the sum as well, where x and y are of one shape.

    Operators: onnxruntime's contrib operator documentation.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._weights = weights

    def call(self, model: ir.Model) -> PassResult:
        graph, flow = model.graph, Dataflow(model.graph)
        sums = {node: total for node in graph if (total := _sum_in_front(node, flow)) is not None}
        try:
            every = [value for total in sums.values() for value in total.inputs if value is not None]
            shapes = Evaluator(model, self._weights).shapes(every, _PROBE.inputs(graph)) if every else {}
        except UnknownValueError as error:
            logger.info("norms stay beside their sums: %s", error)
            return PassResult(model, modified=False)
        alike = []
        for node, total in sums.items():
            one, other = (shapes[value] for value in total.inputs if value is not None)
            if one == other and len(one) == _AXES:
                alike.append((node, total))
        for node, total in alike:
            _rewrite(graph, node, total)
        if alike:
            model.opset_imports.setdefault(CONTRIB, 1)
        return PassResult(model, modified=bool(alike))


def _sum_in_front(node: ir.Node, flow: Dataflow) -> ir.Node | None:
    value = node.inputs[0] if node.op_type in _WITH_SUM and not node.domain else None
    total = value.producer() if value is not None else None
    if total is None or total.op_type != "Add" or not flow.data_inputs(total):
        return None
    fixed = any(
        each is not None and (layout_of(each) or ir.convenience.get_const_tensor(each)) for each in total.inputs
    )
    return None if fixed else total


def _rewrite(graph: ir.Graph, norm: ir.Node, total: ir.Node) -> None:
    residual, y = total.inputs
    assert residual is not None
    assert y is not None
    if _bias_of(y) is None and _bias_of(residual) is not None:
        residual, y = y, residual
    bias = _bias_of(y)
    if bias is not None:
        add = y.producer()
        assert add is not None
        y = next(value for value in add.inputs if value is not bias)
    scale, shift = norm.inputs[1], norm.inputs[2] if len(norm.inputs) > 2 else None
    middle = [scale, shift] if norm.op_type == "LayerNormalization" else [scale]
    fused = ir.node(
        _WITH_SUM[norm.op_type],
        [y, residual, *middle, *([bias] if bias is not None else [])],
        attributes={"epsilon": norm.attributes.get_float("epsilon", 1e-5)},
        domain=CONTRIB,
        num_outputs=4,
        name=f"{norm.outputs[0].name}/with_sum",
    )
    name_outputs(fused)
    for plain, new in ((norm.outputs[0], fused.outputs[0]), (total.outputs[0], fused.outputs[3])):
        new.type, new.shape = plain.type, plain.shape
    for value in (scale, shift, bias):
        _raise(graph, value, total)
    graph.insert_before(total, [fused])
    norm.outputs[0].replace_all_uses_with(fused.outputs[0])
    total.outputs[0].replace_all_uses_with(fused.outputs[3])


def _raise(graph: ir.Graph, value: ir.Value | None, before: ir.Node) -> None:
    """Moves what computes a scale or shift in front of `before`, unless it stands there."""
    node = value.producer() if value is not None else None
    if node is None or not _stands_behind(graph, node, before):
        return
    graph.remove(node)
    graph.insert_before(before, [node])
    for each in node.inputs:
        _raise(graph, each, node)


def _stands_behind(graph: ir.Graph, node: ir.Node, before: ir.Node) -> bool:
    for each in graph:
        if each is node or each is before:
            return each is before
    return False


def _bias_of(value: ir.Value) -> ir.Value | None:
    """The bias that is added to a product which nothing else reads."""
    node = value.producer()
    if node is None or node.op_type != "Add" or len(value.uses()) != 1:
        return None
    return next((each for each in node.inputs if is_bias(each)), None)
