"""RMS norms and layer norms, in whatever operators they are written, become one operator each.

Formulas: Zhang & Sennrich, arXiv:1910.07467 (RMS); Ba et al., arXiv:1607.06450.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import Tensor

from gpt_export.passes.building import constant, name_outputs
from gpt_export.passes.fused.dataflow import ELEMENTWISE, Dataflow
from gpt_export.passes.fused.evaluation import Evaluator, UnknownValueError
from gpt_export.passes.fused.facts import NORMS, set_found
from gpt_export.passes.fused.probes import Probe

logger = logging.getLogger(__name__)
Array = np.ndarray
RMS_NORM = "SimplifiedLayerNormalization"
"""onnxruntime registers it in the standard domain, where ONNX itself does not know it."""
_MEANS = frozenset({"ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2"})
_FUSED = frozenset({RMS_NORM, "LayerNormalization"})
_PROBE = Probe(2, 0, 3)
_FAR = 6
"""How many values in front of a mean may be what is normed."""
_CLOSE = 1e-5
_TINY = 1e-4
_NO_EPSILON = 1e-13


@dataclass(frozen=True, slots=True)
class Norm:
    """`y` is what the norm of `x` over its last axis gives."""

    x: ir.Value
    y: ir.Value
    width: int
    centred: bool
    epsilon: float
    scale: ir.Value | None
    shift: ir.Value | None


class FuseNorms(InPlacePass):
    """Finds norms by what they compute, from the mean that each of them takes.

    Args:
        weights: the numbers of the weights; scales and shifts of norms are read.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._weights = weights

    def call(self, model: ir.Model) -> PassResult:
        graph = model.graph
        evaluate = Evaluator(model, self._weights)
        flow = Dataflow(graph)
        means = [node for node in graph if node.op_type in _MEANS and node.inputs[0] in flow]
        starts = {node: flow.gates(node.inputs[0], _computes_norms)[:_FAR] for node in means if node.inputs[0]}
        try:
            every = list(dict.fromkeys(value for values in starts.values() for value in values))
            shapes = evaluate.shapes(every, _PROBE.inputs(graph)) if every else {}
        except UnknownValueError as error:
            logger.info("norms stay as they are: %s", error)
            return PassResult(model, modified=False)
        found = [norm for mean, values in starts.items() for norm in _norms(flow, evaluate, mean, values, shapes)]
        norms = {norm.y: norm for norm in found}  # a layer norm takes two means
        for norm in norms.values():
            _rewrite(graph, norm)
        RemoveUnusedNodesPass()(model)
        if norms:
            logger.info("fused %d norms", len(norms))
        set_found(model, "norms", NORMS)
        return PassResult(model, modified=bool(norms))


def _computes_norms(node: ir.Node) -> bool:
    return node.op_type in ELEMENTWISE or node.op_type in _MEANS


def _norms(
    flow: Dataflow,
    evaluate: Evaluator,
    mean: ir.Node,
    starts: list[ir.Value],
    shapes: Mapping[ir.Value, tuple[int, ...]],
) -> list[Norm]:
    """The norms that take `mean`, of one of `starts`, the latest if there are several."""
    behind = set(flow.behind(mean))
    for index, x in enumerate(starts):
        found = _norms_of(flow, evaluate, behind, x, shapes[x])
        if not found:
            continue
        for wider in starts[index + 1 :]:
            node = found[0].x.producer()
            if node is None or node.op_type not in ("Cast", "Identity"):
                break
            found = _norms_of(flow, evaluate, behind, wider, shapes[wider]) or found
        return found
    return []


def _norms_of(
    flow: Dataflow, evaluate: Evaluator, behind: set[ir.Value], x: ir.Value, shape: tuple[int, ...]
) -> list[Norm]:
    """The norms of `x` that end in one of `behind`; those of several layers may share their mean."""
    if len(shape) < 2 or shape[-1] < 2:
        return []
    values = flow.functions_of(x, lambda node: _computes_norms(node) and not flow.varies_beside_data(node))[1:]
    texts = _texts(shape)
    try:
        arrays = [evaluate(values, {x: text}) for text in texts]
    except UnknownValueError:
        return []
    found: list[Norm] = []
    inside: set[ir.Value] = set()
    for place in reversed(range(len(values))):
        value, y = values[place], [each[place] for each in arrays]
        if value in inside or value not in behind or y[0].shape != shape:
            continue
        read = _read(texts, y)
        norm = _with_operands(flow, evaluate, values, x, value, read) if read is not None else None
        if norm is not None:
            found.append(norm)
            inside.update(_leading_to(value, values))
    return found


def _with_operands(
    flow: Dataflow,
    evaluate: Evaluator,
    values: list[ir.Value],
    x: ir.Value,
    y: ir.Value,
    read: tuple[bool, float, Array, Array],
) -> Norm | None:
    """The norm, if the graph has its scale and shift or it needs none."""
    centred, epsilon, scale, shift = read
    between = list(_leading_to(y, values))
    scales, shifts = (_operand(flow, evaluate, between, numbers) for numbers in (scale, shift))
    needed = bool((np.abs(scale - 1) > _CLOSE).any()), bool((np.abs(shift) > _CLOSE).any())
    if (needed[0] and scales is None) or (needed[1] and shifts is None):
        return None
    return Norm(x, y, len(scale), centred, epsilon, scales, shifts)


def _leading_to(end: ir.Value, among: Iterable[ir.Value]) -> dict[ir.Value, None]:
    """`end` and those of `among` that it is computed from, the latest first."""
    known = set(among)
    found: dict[ir.Value, None] = {end: None}
    for value in (waiting := [end]):
        node = value.producer()
        for each in node.inputs if node is not None else ():
            if each is not None and each in known and each not in found:
                found[each] = None
                waiting.append(each)
    return found


def _texts(shape: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Large numbers, beside which no epsilon counts, small ones, beside which it does, and rows of one number."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=shape).astype(np.float32)
    return x * np.float32(1e3), x * np.float32(_TINY), np.ones(shape, np.float32)


def _read(texts: tuple[Array, Array, Array], y: list[Array]) -> tuple[bool, float, Array, Array] | None:
    """Whether it takes the mean away, epsilon, scale and shift of `y`; None if it is no norm."""
    large, small, same = (each.reshape(-1, each.shape[-1]).astype(np.float64) for each in texts)
    of_large, of_small, of_same = (each.reshape(-1, each.shape[-1]).astype(np.float64) for each in y)
    for centred in (False, True):
        if centred:
            large, small = (each - each.mean(-1, keepdims=True) for each in (large, small))
        shift = of_same[0] if centred else np.zeros(same.shape[-1])
        normed = large / np.sqrt((large**2).mean(-1, keepdims=True))
        scale = ((of_large - shift) * normed).sum(0) / (normed**2).sum(0)
        if not _near(of_large, normed * scale + shift):
            continue
        power = (small**2).mean(-1, keepdims=True)
        wide = small * scale
        ratio = (wide**2).sum(-1) / np.maximum((wide * (of_small - shift)).sum(-1), 1e-300)
        epsilon = float(np.median(ratio**2 - power[:, 0]))
        epsilon = float(f"{epsilon:.4g}") if epsilon > _NO_EPSILON else 0.0
        if _near(of_small, wide / np.sqrt(power + epsilon) + shift, 10 * _CLOSE):
            return centred, epsilon, scale, shift
    return None


def _near(found: Array, wanted: Array, within: float = _CLOSE) -> bool:
    return bool(np.isfinite(found).all() and np.abs(found - wanted).max() <= within * np.abs(wanted).max())


def _operand(flow: Dataflow, evaluate: Evaluator, values: list[ir.Value], numbers: Array) -> ir.Value | None:
    """What is read beside data on the way to `values` and holds `numbers`, one for each column."""
    for value in values:
        node = value.producer()
        for operand in node.inputs if node is not None else ():
            if operand is None or operand in flow or ir.convenience.get_const_tensor(operand) is not None:
                continue
            try:
                (array,) = evaluate([operand], {})
            except UnknownValueError:
                continue
            if array.shape == numbers.shape and np.allclose(array, numbers, rtol=1e-4, atol=_CLOSE):
                return operand
    return None


def _rewrite(graph: ir.Graph, norm: Norm) -> None:
    before = norm.y.producer()
    assert before is not None
    name = f"{norm.y.name}/norm"
    scale, nodes = norm.scale, list[ir.Node]()
    if scale is None:
        nodes.append(constant(f"{name}/ones", np.ones(norm.width), np.float32))
        scale = nodes[-1].outputs[0]
    inputs = [norm.x, scale, norm.shift] if norm.shift is not None else [norm.x, scale]
    turned = _transposed(norm.x)
    if turned is not None:
        inputs[0] = turned.inputs[0]  # type: ignore[assignment]
    op_type = "LayerNormalization" if norm.centred else RMS_NORM
    fused = ir.node(op_type, inputs, attributes={"axis": -1, "epsilon": norm.epsilon}, name=name)
    nodes.append(name_outputs(fused))
    if turned is not None:
        fused = ir.node("Transpose", fused.outputs, attributes=dict(turned.attributes), name=f"{name}/turned")
        nodes.append(name_outputs(fused))
    graph.insert_before(before, nodes)
    norm.y.replace_all_uses_with(fused.outputs[0])


def _transposed(x: ir.Value) -> ir.Node | None:
    """The Transpose in front of `x` that leaves the last axis where it is: the norm may as well be taken before it."""
    node = x.producer()
    perm = node.attributes.get_ints("perm", ()) if node is not None and node.op_type == "Transpose" else ()
    return node if perm and perm[-1] == len(perm) - 1 else None
