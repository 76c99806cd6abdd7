"""Activations as 8-bit integers, one scale for each token."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from gpt_export.passes.building import CONTRIB, constant, graph_input, name_outputs
from gpt_export.runtime.signature import INPUT_IDS

FLAT = "gpt_export_flat_tokens"
"""Set in a model's `meta` by the pass that made every activation in front of a product (tokens, width)."""
_ZERO_POINT = 128
_STEPS = 127


class TokenCodes:
    """Quantises activations token by token: symmetric, 8 bits, one scale for each row of a flat (tokens, K) tensor.

    A token of zeros has the scale 0: whatever codes it gets, they are multiplied by 0 behind the product.

    A scale for each token, and none for all of them, keeps what is computed of a token independent of those behind it
    and of the rows beside it. Method: Dettmers et al., arXiv:2208.07339, section 2 (vector-wise), without outliers.

    Args:
        flat: whether every x is (tokens of `input_ids`, K) already; else each is flattened and given its shape back.
    """

    def __init__(self, graph: ir.Graph, *, flat: bool) -> None:
        self._graph = graph
        self._flat = flat
        self._rows: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
        self._leading: dict[ir.Value, ir.Value] = {}
        self._shared: dict[str, ir.Value] = {}

    def product(
        self, x: ir.Value, codes: ir.Value, scales: ir.Value, width: int, outputs: int, name: str
    ) -> list[ir.Node]:
        """The nodes of `x @ weight`, for x (..., `width`); the last one's output is the product, (..., `outputs`)."""
        if not self._shared:
            self._share()
        nodes = [] if x in self._rows else self._quantize(x, width, name)
        quantized, token_scales = self._rows[x]
        inputs = [quantized, codes, self._shared["one"], scales, self._shared["zero_point"]]
        product = ir.node("MatMulIntegerToFloat", inputs, domain=CONTRIB, name=f"{name}_integers")
        scaled = ir.node("Mul", [product.outputs[0], token_scales], name=f"{name}_quantized")
        nodes += [product, scaled]
        if x in self._leading:
            last = constant(f"{name}/outputs", [outputs])
            dims = [self._leading[x], last.outputs[0]]
            shape = ir.node("Concat", dims, attributes={"axis": 0}, name=f"{name}/shape")
            nodes += [last, shape]
            nodes.append(ir.node("Reshape", [scaled.outputs[0], shape.outputs[0]], name=f"{name}/unflattened"))
        return [name_outputs(node) for node in nodes]

    def _quantize(self, x: ir.Value, width: int, name: str) -> list[ir.Node]:
        shared, nodes, rows = self._shared, [], x
        if not self._flat and not _has_two_axes(x):
            leading = name_outputs(ir.node("Shape", [x], attributes={"end": -1}, name=f"{name}/leading_dims"))
            shape = constant(f"{name}/rows_shape", [-1, width])
            flattened = name_outputs(ir.node("Reshape", [x, shape.outputs[0]], name=f"{name}/rows"))
            self._leading[x] = leading.outputs[0]
            nodes += [leading, shape, flattened]
            rows = flattened.outputs[0]
        size = ir.node("Abs", [rows], name=f"{name}/size")
        largest = ir.node(
            "ReduceMax", [size.outputs[0], shared["last_axis"]], attributes={"keepdims": 1}, name=f"{name}/largest"
        )
        scale = ir.node("Mul", [largest.outputs[0], shared["step"]], name=f"{name}/scale")
        flat = ir.node("Squeeze", [scale.outputs[0], shared["last_axis"]], name=f"{name}/scale_1d")
        nodes += [size, largest, scale, flat]
        if self._flat:
            zero_points = shared["zero_points"]
        else:
            count = ir.node("Shape", [flat.outputs[0]], name=f"{name}/count")
            zeros = _zero_points(count.outputs[0], f"{name}/zero_points")
            nodes += [count, zeros]
            zero_points = zeros.outputs[0]
        codes = ir.node("QuantizeLinear", [rows, flat.outputs[0], zero_points], {"axis": 0}, name=f"{name}/tokens")
        self._rows[x] = codes.outputs[0], scale.outputs[0]
        return [*nodes, codes]

    def _share(self) -> None:
        nodes: list[ir.Node] = []
        for key, value, dtype in (
            ("one", 1, np.float32),
            ("step", 1 / _STEPS, np.float32),
            ("last_axis", [-1], np.int64),
            ("zero_point", _ZERO_POINT, np.uint8),
        ):
            nodes.append(constant(f"/tokens/{key}", value, dtype))
            self._shared[key] = nodes[-1].outputs[0]
        if self._flat:
            ids = graph_input(self._graph, INPUT_IDS)
            size = name_outputs(ir.node("Size", [ids], name="/tokens/size"))
            one = constant("/tokens/one_dim", [1])
            dims = name_outputs(ir.node("Reshape", [size.outputs[0], one.outputs[0]], name="/tokens/dims"))
            zeros = name_outputs(_zero_points(dims.outputs[0], "/tokens/zero_points"))
            nodes += [size, one, dims, zeros]
            self._shared["zero_points"] = zeros.outputs[0]
        self._graph.insert_before(self._graph[0], nodes)


def _zero_points(dims: ir.Value, name: str) -> ir.Node:
    filled: dict[str, Any] = {"value": ir.tensor(np.array([_ZERO_POINT], np.uint8))}
    return ir.node("ConstantOfShape", [dims], attributes=filled, name=name)


def _has_two_axes(x: ir.Value) -> bool:
    node = x.producer()
    if node is not None and node.op_type == "Reshape" and node.inputs[1] is not None:
        shape = ir.convenience.get_const_tensor(node.inputs[1])
        if shape is not None:
            return shape.size == 2
    return x.shape is not None and len(x.shape) == 2
