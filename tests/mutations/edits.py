"""Faults planted in a finished ONNX file, as another exporter or a broken pass would make them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Edit = Callable[[onnx.ModelProto], None]
Values = NDArray[np.float32]


def values_of(model: onnx.ModelProto, name: str) -> Values:
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    return numpy_helper.to_array(tensor).copy()


def set_values(model: onnx.ModelProto, name: str, values: NDArray[np.generic]) -> None:
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), name))


def producer(model: onnx.ModelProto, tensor: str) -> onnx.NodeProto:
    (node,) = (node for node in model.graph.node if tensor in node.output)
    return node


def readers(model: onnx.ModelProto, tensor: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if tensor in node.input]


def reader(model: onnx.ModelProto, tensor: str) -> onnx.NodeProto:
    (node,) = readers(model, tensor)
    return node


def rewire(model: onnx.ModelProto, old: str, new: str, nodes: list[onnx.NodeProto] | None = None) -> None:
    """Lets `nodes`, all of them if left out, read `new` where they read `old`."""
    for node in model.graph.node if nodes is None else nodes:
        node.input[:] = [new if name == old else name for name in node.input]


def insert_after(model: onnx.ModelProto, tensor: str, *nodes: onnx.NodeProto) -> None:
    """Puts `nodes` behind the producer of `tensor`; who read `tensor` reads the last one's output."""
    others = readers(model, tensor)
    place = list(model.graph.node).index(producer(model, tensor)) + 1
    rewire(model, tensor, nodes[-1].output[0], others)
    for node in reversed(nodes):
        model.graph.node.insert(place, node)


def constant(model: onnx.ModelProto, name: str, value: object) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def attribute(node: onnx.NodeProto, name: str, value: object) -> None:
    kept = [item for item in node.attribute if item.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


# Weights that are not the source's.


def transposed(weight: str) -> Edit:
    return lambda model: set_values(model, weight, values_of(model, weight).T)


def rounded_to_8_bits(weight: str) -> Edit:
    """Symmetric, one scale a tensor."""

    def edit(model: onnx.ModelProto) -> None:
        values = values_of(model, weight)
        step = np.abs(values).max() / 127
        set_values(model, weight, (np.round(values / step) * step).astype(np.float32))

    return edit


def rounded_to_float16(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            set_values(model, tensor.name, values_of(model, tensor.name).astype(np.float16).astype(np.float32))


def exchanged(first: str, second: str) -> Edit:
    """The values of two weights, or of all weights of two layers (names that end in a dot)."""

    def edit(model: onnx.ModelProto) -> None:
        names = {tensor.name for tensor in model.graph.initializer}
        pairs = {name: second + name.removeprefix(first) for name in names if name.startswith(first)}
        kept = {name: values_of(model, name) for pair in pairs.items() for name in pair}
        for one, other in pairs.items():
            set_values(model, one, kept[other])
            set_values(model, other, kept[one])

    return edit


def shifted_rows(weight: str) -> Edit:
    return lambda model: set_values(model, weight, np.roll(values_of(model, weight), 1, axis=0))


def one_bit_flipped(weight: str, row: int) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        values = values_of(model, weight)
        values.view(np.uint32)[row, 0] ^= 1
        set_values(model, weight, values)

    return edit


def heads_permuted(layer: int, heads: int) -> Edit:
    """The output projection takes the heads in another order."""
    weight = f"trf_blocks.{layer}.att.out_proj.weight"

    def edit(model: onnx.ModelProto) -> None:
        values = values_of(model, weight)  # stored as (in, out)
        set_values(model, weight, np.roll(values.reshape(heads, -1, values.shape[1]), 1, axis=0).reshape(values.shape))

    return edit


# Graphs that are put together wrongly from the right weights.


def wired_exchanged(first: str, second: str) -> Edit:
    """Nodes read one weight in place of the other; every weight keeps its values."""

    def edit(model: onnx.ModelProto) -> None:
        names = {tensor.name for tensor in model.graph.initializer}
        pairs = {name: second + name.removeprefix(first) for name in names if name.startswith(first)}
        pairs |= {other: one for one, other in pairs.items()}
        for node in model.graph.node:
            node.input[:] = [pairs.get(name, name) for name in node.input]

    return edit


def wired_in_place_of(old: str, new: str) -> Edit:
    """Nodes read the weights of one module in place of another's, which nothing reads then."""

    def edit(model: onnx.ModelProto) -> None:
        names = {tensor.name for tensor in model.graph.initializer if tensor.name.startswith(old)}
        for node in model.graph.node:
            node.input[:] = [new + name.removeprefix(old) if name in names else name for name in node.input]

    return edit


def bias_left_out(weight: str) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        add = reader(model, weight.replace(".weight", ".bias"))
        product = reader(model, weight)
        rewire(model, add.output[0], product.output[0])
        model.graph.node.remove(add)

    return edit


def last_layer_left_out(layer: int) -> Edit:
    """The final norm reads what the last layer should."""

    def edit(model: onnx.ModelProto) -> None:
        before = reader(model, f"trf_blocks.{layer}.norm1.scale").input[0]
        norm = reader(model, "final_norm.scale")
        norm.input[0] = before

    return edit


def middle_layer_left_out(layer: int) -> Edit:
    """The next layer reads what this one should."""

    def edit(model: onnx.ModelProto) -> None:
        before = reader(model, f"trf_blocks.{layer}.norm1.scale").input[0]
        after = reader(model, f"trf_blocks.{layer + 1}.norm1.scale").input[0]
        rewire(model, after, before)

    return edit


def residual_left_out(layer: int) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        summed = reader(model, f"trf_blocks.{layer}.norm2.scale").input[0]
        rewire(model, summed, reader(model, f"trf_blocks.{layer}.att.out_proj.bias").output[0])

    return edit


def final_norm_left_out(model: onnx.ModelProto) -> None:
    norm = reader(model, "final_norm.scale")
    rewire(model, norm.output[0], norm.input[0])
    model.graph.node.remove(norm)


def softmax_over_queries(layer: int) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        attribute([node for node in model.graph.node if node.op_type == "Softmax"][layer], "axis", -2)

    return edit


def in_float16(weight: str) -> Edit:
    """The activation behind a weight passes through half precision."""

    def edit(model: onnx.ModelProto) -> None:
        out = reader(model, weight.replace(".weight", ".bias")).output[0]
        half = helper.make_node("Cast", [out], ["planted_half"], name="/planted/half", to=TensorProto.FLOAT16)
        back = helper.make_node("Cast", ["planted_half"], ["planted"], name="/planted", to=TensorProto.FLOAT)
        insert_after(model, out, half, back)

    return edit


def joined_on_axis(layer: int, axis: int) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        for kind in ("key", "value"):
            attribute(producer(model, f"present.{layer}.{kind}"), "axis", axis)

    return edit


def presents_exchanged(first: int, second: int) -> Edit:
    """The cache of one layer is handed out as the other's."""

    def edit(model: onnx.ModelProto) -> None:
        other = {f"present.{first}.key": f"present.{second}.key", f"present.{second}.key": f"present.{first}.key"}
        for node in model.graph.node:
            for names in (node.input, node.output):
                names[:] = [other.get(name, name) for name in names]
        _sort(model)

    return edit


def _sort(model: onnx.ModelProto) -> None:
    known = {value.name for value in (*model.graph.input, *model.graph.initializer)} | {""}
    left, ordered = list(model.graph.node), []
    while left:
        ready = [node for node in left if known.issuperset(node.input)]
        assert ready, "the edit made a cycle"
        ordered.append(ready[0])
        left.remove(ready[0])
        known.update(ready[0].output)
    del model.graph.node[:]
    model.graph.node.extend(ordered)


def sequence_frozen(length: int) -> Edit:
    """The mask is made for the example's number of new tokens."""

    def edit(model: onnx.ModelProto) -> None:
        shape = next(node for node in readers(model, "input_ids") if node.op_type == "Shape")
        count = reader(model, shape.output[0])
        constant(model, "planted_length", np.array(length, np.int64))
        rewire(model, count.output[0], "planted_length")

    return edit


def positions_frozen(length: int) -> Edit:
    """Only the first positions are looked at: a Slice with a constant end."""

    def edit(model: onnx.ModelProto) -> None:
        for name, value in (("start", [0]), ("end", [length]), ("axis", [1])):
            constant(model, f"planted_{name}", np.array(value, np.int64))
        node = helper.make_node(
            "Slice", ["position_ids", "planted_start", "planted_end", "planted_axis"], ["planted"], name="/planted"
        )
        rewire(model, "position_ids", "planted")
        model.graph.node.insert(0, node)

    return edit


def head_untied(model: onnx.ModelProto) -> None:
    """The head has a matrix of its own, as if it had been trained on for a while after the copy."""
    table = values_of(model, "tok_emb.weight")
    noise = np.random.default_rng(5).normal(0, 0.01 * table.std(), table.shape)
    constant(model, "planted_head", (table + noise).astype(np.float32))
    for node in readers(model, "tok_emb.weight"):
        if node.op_type != "Gather":
            rewire(model, "tok_emb.weight", "planted_head", [node])


def logits_normalised(model: onnx.ModelProto) -> None:
    """The graph returns log-probabilities."""
    node = producer(model, "logits")
    node.output[0] = "planted_logits"
    model.graph.node.append(helper.make_node("LogSoftmax", ["planted_logits"], ["logits"], name="/planted", axis=-1))


def dropout_inserted(layer: int) -> Edit:
    """A Dropout node in training mode behind the MLP of a layer."""

    def edit(model: onnx.ModelProto) -> None:
        constant(model, "planted_rate", np.float32(0.1))
        constant(model, "planted_training", np.array(True))
        out = reader(model, f"trf_blocks.{layer}.ff.layers.2.bias").output[0]
        node = helper.make_node("Dropout", [out, "planted_rate", "planted_training"], ["planted"], name="/planted")
        insert_after(model, out, node)

    return edit
