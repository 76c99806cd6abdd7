"""A cache of 8 bits: keys and values are stored as codes, with one scale for each channel of each head."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import InPlacePass, PassResult

from gpt_export.errors import GraphError
from gpt_export.passes.building import constant, name_outputs
from gpt_export.passes.fused.facts import attention_facts

ATTENTION = "GroupQueryAttention"
BITS = 8
_SCALE_INPUTS = (12, 13)
"""`k_scale` and `v_scale`."""
_PASTS = (3, 4)


class QuantizeCache(InPlacePass):
    """Past and present of every layer become int8 (batch, heads, tokens, width), and their scales constants.

    The operator rounds what is new, x / scale to the nearest from -128 to 127, and computes with code x scale. Its CPU
    kernel wants keys and values scaled alike; by channel both, since a few channels of keys are much larger than the
    others (Liu et al., KIVI, arXiv:2402.02750, section 3).

    Args:
        scales: by the name of the present, float32 (1, heads, 1, width); see `cache_scales`.

    Raises:
        GraphError: a layer attends in other operators, or the graph has no cache.
    """

    def __init__(self, scales: Mapping[str, NDArray[np.float32]]) -> None:
        super().__init__()
        self._scales = scales

    def call(self, model: ir.Model) -> PassResult:
        graph = model.graph
        for node in attentions(model):
            while len(node.inputs) <= _SCALE_INPUTS[-1]:
                node.resize_inputs(len(node.inputs) + 1)
            for past, at, present in zip(_PASTS, _SCALE_INPUTS, node.outputs[1:3], strict=True):
                name = f"/cache_scales/{present.name}"
                scale = constant(name, self._scales[str(present.name)], np.float32)
                graph.insert_before(node, [scale])
                node.replace_input_with(at, scale.outputs[0])
                before = node.inputs[past]
                assert before is not None
                _give_numbers(graph, before, scale.outputs[0])
                before.type = present.type = ir.TensorType(ir.DataType.INT8)
            node.attributes.add(ir.AttrInt64("kv_cache_bit_width", BITS))
            for name in ("k_quant_type", "v_quant_type"):
                node.attributes.add(ir.AttrString(name, "PER_CHANNEL"))
        return PassResult(model, modified=True)


def _give_numbers(graph: ir.Graph, past: ir.Value, scale: ir.Value) -> None:
    """Code times scale for whatever else reads `past`, such as a bias of the graph's own that is as long."""
    others = [(node, index) for node, index in past.uses() if node.op_type not in (ATTENTION, "Shape")]
    if not others:
        return
    wide = name_outputs(
        ir.node("Cast", [past], attributes={"to": ir.DataType.FLOAT}, name=f"/cache_scales/{past.name}/wide")
    )
    numbers = name_outputs(ir.node("Mul", [wide.outputs[0], scale], name=f"/cache_scales/{past.name}/numbers"))
    first = scale.producer()
    assert first is not None
    graph.remove(first)
    graph.insert_before(graph[0], [first, wide, numbers])
    for node, index in others:
        node.replace_input_with(index, numbers.outputs[0])


def attentions(model: ir.Model) -> list[ir.Node]:
    """The operators that write the cache of `model`, layer by layer.

    Raises:
        GraphError: there is no cache, or a layer's is not written by an operator that takes 8 bits.
    """
    keys = [value for value in model.graph.outputs if str(value.name).endswith(".key")]
    if not keys:
        raise GraphError("there is no cache that could have 8 bits in this graph; leave --kv-cache int8 out")
    reasons = {f"present.{facts.layer}.key": facts.plain for facts in attention_facts(model)}
    nodes = []
    for key in keys:
        node = key.producer()
        if node is None or node.op_type != ATTENTION or len(node.outputs) < 3:
            layer, reason = str(key.name).split(".")[1], reasons.get(str(key.name))
            raise GraphError(
                f"the cache of layer {layer} cannot have 8 bits, because its attention is no {ATTENTION}"
                + (f": {reason}" if reason else "")
                + "; leave --kv-cache int8 out"
            )
        nodes.append(node)
    return nodes
