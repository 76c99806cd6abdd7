"""Attention over a cache, written out in standard operators, becomes onnxruntime's GroupQueryAttention.

The operator appends the new keys and values to the past (in place, where both are one buffer), hides what lies after a
query, and adds `attention_bias` to the scores: padding is hidden by it, so that left-padded rows stay right. Contract:
the documentation of onnxruntime's contrib operators.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from gpt_export_models.gpt import MASK_FILL
from onnx_ir.passes import InPlacePass, PassResult
from onnxscript.rewriter import RewritePass, pattern

from gpt_export.passes.building import CONTRIB, constant, graph_input, name_outputs
from gpt_export.runtime.signature import ATTENTION_MASK, INPUT_IDS

HEAD_MULTIPLE = 8
"""GroupQueryAttention takes heads whose width is a multiple of this."""
NO_SINK = -6e4
"""Beside any score its exp is 0, even where all keys are hidden: a sink that takes no attention. Finite in float16."""
_HEADS_FIRST = (0, 2, 1, 3)
_KEYS_LAST = (0, 1, 3, 2)


class FuseGroupedAttention(InPlacePass):
    """Rewrites the attention of every layer; what it needs of the mask is computed once for all of them.

    `head_sink` is given, although at `NO_SINK` it does nothing, because onnxruntime 1.32 then takes its kernel for
    whole score matrices; the tiled one takes more than twice as long for a prompt on machines whose second-level cache
    it cannot learn.

    Args:
        n_heads: heads of every layer; there are as many of keys and values.
    """

    def __init__(self, n_heads: int) -> None:
        super().__init__()
        self._n_heads = n_heads

    def call(self, model: ir.Model) -> PassResult:
        parts: dict[str, ir.Value] = {}

        def fused(
            op: Any, packed: ir.Value, past_key: ir.Value, past_value: ir.Value, scale: ir.Value, **_: Any
        ) -> Any:
            factor = ir.convenience.get_const_tensor(scale)
            assert factor is not None
            if not parts:
                parts.update(_mask_parts(model.graph, self._n_heads))
            mask = (None, None, None, parts["bias"], parts["sink"])
            return op.GroupQueryAttention(
                packed, None, None, past_key, past_value, parts["last"], parts["total"], *mask,
                num_heads=self._n_heads, kv_num_heads=self._n_heads, scale=float(factor.numpy()),
                _outputs=3, _domain=CONTRIB,
            )  # fmt: skip

        result = RewritePass([pattern.RewriteRule(_written_out, fused, _scale_is_known, name="attention")])(model)
        return PassResult(result.model, modified=result.modified)


def _written_out(
    op: Any,
    packed: Any,
    sizes: Any,
    past_key: Any,
    past_value: Any,
    bias: Any,
    scale: Any,
    heads_shape: Any,
    merged_shape: Any,
) -> Any:
    query, key, value = op.Split(packed, sizes, axis=-1, _outputs=3)
    query = op.Mul(op.Transpose(op.Reshape(query, heads_shape), perm=_HEADS_FIRST), scale)
    present_key = op.Concat(past_key, op.Transpose(op.Reshape(key, heads_shape), perm=_HEADS_FIRST), axis=2)
    present_value = op.Concat(past_value, op.Transpose(op.Reshape(value, heads_shape), perm=_HEADS_FIRST), axis=2)
    scores = op.Add(op.MatMul(query, op.Transpose(present_key, perm=_KEYS_LAST)), bias)
    mixed = op.MatMul(op.Softmax(scores, axis=-1), present_value)
    return op.Reshape(op.Transpose(mixed, perm=_HEADS_FIRST), merged_shape), present_key, present_value


def _scale_is_known(_context: Any, scale: ir.Value, **_: Any) -> bool:
    factor = ir.convenience.get_const_tensor(scale)
    return factor is not None and factor.size == 1


def _mask_parts(graph: ir.Graph, n_heads: int) -> dict[str, ir.Value]:
    """What the operator asks for, put in front of the graph.

    `total` (int32 scalar) past and new tokens, `last` (int32, batch) the index of a row's last one, `bias` (batch, 1,
    new, total) `MASK_FILL` where a key is padding, else 0, and `sink` (heads).
    """
    ids, mask = graph_input(graph, INPUT_IDS), graph_input(graph, ATTENTION_MASK)
    nodes: list[ir.Node] = []

    def add(op_type: str, inputs: list[ir.Value], name: str, **attributes: Any) -> ir.Value:
        nodes.append(name_outputs(ir.node(op_type, inputs, attributes=attributes, name=f"/mask/{name}")))
        return nodes[-1].outputs[0]

    def given(name: str, value: Any, dtype: Any = np.int64) -> ir.Value:
        nodes.append(constant(f"/mask/{name}", value, dtype))
        return nodes[-1].outputs[0]

    one = given("one", [1])
    length = add("Shape", [mask], "length", start=1, end=2)
    total = add("Squeeze", [add("Cast", [length], "length_32", to=ir.DataType.INT32)], "total")
    rows = add("Shape", [ids], "rows", start=0, end=1)
    last = add("Expand", [add("Sub", [total, given("one_32", 1, np.int32)], "last_index"), rows], "last")
    hidden = add("Sub", [given("shown", 1, np.float32), add("Cast", [mask], "float", to=ir.DataType.FLOAT)], "hidden")
    fill = add("Mul", [hidden, given("fill", MASK_FILL, np.float32)], "filled")
    by_key = add("Unsqueeze", [fill, given("axes", [1, 2])], "by_key")
    new = add("Shape", [ids], "new", start=1, end=2)
    bias = add("Expand", [by_key, add("Concat", [one, one, new, one], "bias_shape", axis=0)], "bias")
    sink = given("no_sink", [NO_SINK] * n_heads, np.float32)
    graph.insert_before(graph[0], nodes)
    return {"total": total, "last": last, "bias": bias, "sink": sink}
