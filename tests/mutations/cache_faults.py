"""Faults of the cache pass: a cached graph as a pass that errs would write it, in a decoder with a sliding window."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from tests.mutations.edits import Edit, constant, producer
from tests.mutations.faults import Fault, edited, faults
from tests.mutations.llama import WINDOW
from tests.mutations.sites import behind, number_read_by


def cut_above_rotation(layer: int) -> Edit:
    """What is kept of the new keys is what goes into their rotation."""

    def edit(model: onnx.ModelProto) -> None:
        join = producer(model, f"present.{layer}.key")
        turned = join.input[1]
        join.input[1] = next(name for name in behind(model, turned, "Mul_1_output_0") if "k_norm" in name)

    return edit


def rows_by_slot(model: onnx.ModelProto) -> None:
    """Every table of positions is read by slot: the rows that are new, whatever a row's padding."""
    slots = "planted_slots"
    gathers = [node for node in model.graph.node if node.op_type == "Gather" and node.input[1] == "position_ids"]
    first = min(list(model.graph.node).index(node) for node in gathers)
    made = [
        helper.make_node("ConstantOfShape", ["planted_shape"], ["planted_zeros"], value=_int_tensor(0)),
        helper.make_node("Add", ["planted_zeros", "planted_range"], [slots]),
        helper.make_node("Shape", ["input_ids"], ["planted_shape"]),
        helper.make_node("Shape", ["attention_mask"], ["planted_total"], start=1, end=2),
        helper.make_node("Shape", ["input_ids"], ["planted_new"], start=1, end=2),
        helper.make_node("Sub", ["planted_total", "planted_new"], ["planted_past"]),
        helper.make_node("Squeeze", ["planted_past"], ["planted_start"]),
        helper.make_node("Squeeze", ["planted_total"], ["planted_end"]),
        helper.make_node(
            "Range", ["planted_start", "planted_end", constant(model, "planted_one", np.array(1))], ["planted_range"]
        ),
    ]
    for node in (*made[:2][::-1], *made[2:][::-1]):
        model.graph.node.insert(first, node)
    for node in gathers:
        node.input[1] = slots


def window_of(tokens: int) -> Edit:
    """The window of every layer is of so many tokens."""

    def edit(model: onnx.ModelProto) -> None:
        node = producer(model, "cache/mask/before_window")
        node.input[1] = number_read_by(model, node, 1, tokens)

    return edit


def window_forgotten_behind_a_past(model: onnx.ModelProto) -> None:
    """The window is wider by all that came in earlier pieces: it is right in a single pass."""
    node = producer(model, "cache/mask/before_window")
    at = list(model.graph.node).index(node)
    model.graph.node.insert(at, helper.make_node("Sub", [node.input[0], "cache/past_scalar"], ["planted_rows"]))
    node.input[0] = "planted_rows"


def window_from_the_start(model: onnx.ModelProto) -> None:
    """Rows look at the first tokens of the text, and not at the last ones before them."""
    node = producer(model, "cache/mask/window")
    node.op_type = "Less"
    node.input[1] = constant(model, "planted_first", np.array(WINDOW))


def rows_without_the_past(model: onnx.ModelProto) -> None:
    """The mask has the rows of a text without a past: it is right for the first piece alone."""
    node = producer(model, "cache/mask/new_slots")
    zero, new = constant(model, "planted_zero", np.array(0)), "planted_new"
    at = list(model.graph.node).index(node)
    model.graph.node.insert(at, helper.make_node("Squeeze", ["planted_new_sizes"], [new]))
    model.graph.node.insert(at, helper.make_node("Shape", ["input_ids"], ["planted_new_sizes"], start=1, end=2))
    node.input[:2] = [zero, new]


def padding_shown(model: onnx.ModelProto) -> None:
    """Keys that are padding are looked at."""
    node = producer(model, "cache/mask/shown")
    node.input[1] = constant(model, "planted_below", np.array(-1))


def _int_tensor(value: int) -> onnx.TensorProto:
    return helper.make_tensor("value", onnx.TensorProto.INT64, [1], [value])


FORGOTTEN = "a window forgotten behind a past"
CACHE_FAULTS: tuple[Fault, ...] = faults(
    # name, layer and part that must be named, words of the cause, how it is planted
    ("a cut above the rotation", 1, "attention", "not rotated", edited(cut_above_rotation(1))),
    ("rows by slot where they must be by position", None, "embedding", "count the padding", edited(rows_by_slot)),
    ("a window counted from the wrong end", 0, "attention", "counted from the start", edited(window_from_the_start)),
    ("a window one token too wide", 0, "attention", "off by one", edited(window_of(WINDOW + 1))),
    ("a window one token too narrow", 0, "attention", "off by one", edited(window_of(WINDOW - 1))),
    (FORGOTTEN, 0, "attention", "where there is a past", edited(window_forgotten_behind_a_past)),
    ("a mask of the new rows for all", 0, "attention", "does not count the past", edited(rows_without_the_past)),
    ("padding that a found cache shows", 0, "attention", "padding", edited(padding_shown)),
)  # fmt: skip
