"""Faults of the fused graph: what another exporter, or a pass that errs, would do to onnxruntime's own operators."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.mutations.edits import (
    Edit,
    attribute,
    constant,
    producer,
    reader,
    set_values,
    values_of,
    wired_exchanged,
    wired_in_place_of,
)
from tests.mutations.faults import BITS, Fault, edited, faults
from tests.mutations.good import VICTIM

FUSED_VICTIM = dataclasses.replace(VICTIM, n_heads=6)
"""Heads of width 8, which GroupQueryAttention takes."""


def nodes_of(model: onnx.ModelProto, operator: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == operator]


def attention_with(layer: int, name: str, value: Any) -> Edit:
    return lambda model: attribute(nodes_of(model, "GroupQueryAttention")[layer], name, value)


def norm_with_epsilon(weight: str, value: float) -> Edit:
    return lambda model: attribute(reader(model, weight), "epsilon", value)


def constant_set(tensor: str, value: Any) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        node = producer(model, tensor)
        del node.attribute[:]
        node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(np.asarray(value))))

    return edit


def gelu_as(layer: int, operator: str) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        nodes_of(model, "FastGelu")[layer].op_type = operator

    return edit


def inputs_exchanged(first: str, second: str) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        other = {first: second, second: first}
        for node in model.graph.node:
            node.input[:] = [other.get(name, name) for name in node.input]

    return edit


def outputs_exchanged(first: str, second: str) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        other = {first: second, second: first}
        for node in model.graph.node:
            node.output[:] = [other.get(name, name) for name in node.output]

    return edit


def input_dropped(weight: str) -> Edit:
    """An operator is not given the bias that it should add."""

    def edit(model: onnx.ModelProto) -> None:
        node = reader(model, weight)
        node.input[:] = ["" if name == weight else name for name in node.input]
        while node.input and not node.input[-1]:
            node.input.pop()

    return edit


def sum_left_out(weight: str) -> Edit:
    """Who should read the sum of a SkipLayerNormalization reads what was added to it."""

    def edit(model: onnx.ModelProto) -> None:
        norm = reader(model, weight)
        total, added = norm.output[3], norm.input[0]
        for node in model.graph.node:
            node.input[:] = [added if name == total else name for name in node.input]

    return edit


def default_of(name: str, value: int) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
        tensor.CopyFrom(numpy_helper.from_array(np.array(value, np.int64), name))

    return edit


def parts_exchanged(weight: str, first: int, second: int) -> Edit:
    """Two of query, key and value, in the matrix that holds all three."""

    def edit(model: onnx.ModelProto) -> None:
        parts = np.split(values_of(model, weight), 3, axis=-1)
        parts[first], parts[second] = parts[second], parts[first]
        set_values(model, weight, np.concatenate(parts, axis=-1))

    return edit


def heads_exchanged(weight: str, head: int) -> Edit:
    """The columns of two heads of the queries."""

    def edit(model: onnx.ModelProto) -> None:
        values = values_of(model, weight)
        width = FUSED_VICTIM.head_dim
        a, b = slice(head * width, (head + 1) * width), slice((head + 1) * width, (head + 2) * width)
        values[:, a], values[:, b] = values[:, b].copy(), values[:, a].copy()
        set_values(model, weight, values)

    return edit


def lengths_off_by_one(model: onnx.ModelProto) -> None:
    """The index of a row's last token is taken to be its length."""
    node = producer(model, "/mask/last_index_output_0")
    node.input[1] = constant(model, "planted_zero", np.array(0, np.int32))


BIAS = "/mask/fill_output_0"
SINK = "/mask/no_sink_output_0"
QKV = "trf_blocks.{}.att.W_query.weight+2"
NO_SINKS = np.zeros(FUSED_VICTIM.n_heads, np.float32)

FUSED_FAULTS: tuple[Fault, ...] = faults(
    # name, layer and part that must be named, words of the cause, how it is planted, what else is so
    ("scores unscaled", 3, "attention", "scale", edited(attention_with(3, "scale", 1.0))),
    ("scores scaled by 1/d", 1, "attention", "by 1/d", edited(attention_with(1, "scale", 1 / 8))),
    ("a sink of score 0", 0, "attention", "sink", edited(constant_set(SINK, NO_SINKS))),
    ("padding visible", 0, "attention", "padding", edited(constant_set(BIAS, np.array(0, np.float32)))),
    ("a window of 4 keys", 2, "attention", "window", edited(attention_with(2, "local_window_size", 4))),
    ("scores capped", 2, "attention", "", edited(attention_with(2, "softcap", 1.0))),
    ("lengths off by one", 0, "attention", "", edited(lengths_off_by_one)),
    ("GELU by erf", 2, "mlp", "erf form", edited(gelu_as(2, "BiasGelu"))),
    ("bias of the GELU left out", 1, "mlp", "bias", edited(input_dropped("trf_blocks.1.ff.layers.0.bias"))),
    ("bias of the residual sum left out", 2, "attention", "bias",
     edited(input_dropped("trf_blocks.2.att.out_proj.bias"))),
    ("epsilon of a fused norm", 1, "norm", "epsilon", edited(norm_with_epsilon("trf_blocks.1.norm2.scale", 1e-2))),
    ("epsilon of the final norm", None, "norm", "epsilon", edited(norm_with_epsilon("final_norm.scale", 1e-2))),
    ("the residual sum left out", 2, "mlp", "", edited(sum_left_out("trf_blocks.2.norm2.scale"))),
    ("one position of logits by default", None, None, "", edited(default_of("num_logits_to_keep", 1))),
    ("past keys of another layer", 1, "attention", "layer 2",
     edited(inputs_exchanged("past_key_values.1.key", "past_key_values.2.key"))),
    ("present values of another layer", 0, "attention", "layer 1",
     edited(outputs_exchanged("present.0.value", "present.1.value"))),
    ("query and key exchanged where they are packed", 1, "attention", "W_",
     edited(parts_exchanged(QKV.format(1), 0, 1)), BITS),
    ("two heads exchanged where they are packed", 2, "attention", "W_",
     edited(heads_exchanged(QKV.format(2), 1)), BITS),
    ("fused layers in the wrong order", 1, "norm", "wrong order",
     edited(wired_exchanged("trf_blocks.1.", "trf_blocks.2."))),
    ("a fused MLP used in two layers", 2, "mlp", "used in both places",
     edited(wired_in_place_of("trf_blocks.2.ff.", "trf_blocks.1.ff."))),
)  # fmt: skip
