"""A small cached decoder that no rule has anything against, to plant faults in, built with onnx.helper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from gpt_export.linting.finding import Finding
from gpt_export.linting.run import lint_file
from gpt_export.linting.settings import LintSettings
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

VOCAB, HEADS, SIZE, LAYERS = 61, 2, 4, 2
WIDTH = HEADS * SIZE
Dim = int | str | None


def value(name: str, dtype: int, dims: Sequence[Dim] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, dims)


def weight(name: str, array: np.ndarray) -> TensorProto:
    return numpy_helper.from_array(array, name)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def good() -> ModelProto:
    """Ids, mask, positions and the past of two layers to logits and presents, opset 18, IR 8."""
    batch, sequence, past = "batch_size", "sequence_length", "past_sequence_length"
    ids = (TensorProto.INT64, (batch, sequence))
    inputs = [
        value("input_ids", *ids),
        value("attention_mask", TensorProto.INT64, (batch, f"{past} + {sequence}")),
        value("position_ids", *ids),
    ]
    outputs = [value("logits", TensorProto.FLOAT, (batch, sequence, VOCAB))]
    nodes = [
        helper.make_node("Gather", ["wte", "input_ids"], ["tokens"], name="tokens"),
        helper.make_node("Gather", ["wpe", "position_ids"], ["positions"], name="positions"),
        helper.make_node("Add", ["tokens", "positions"], ["x"], name="x"),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT, name="mask"),
        helper.make_node("ReduceMax", ["mask"], ["any"], keepdims=0, name="any"),
        helper.make_node("Mul", ["x", "any"], ["masked"], name="masked"),
        helper.make_node("Reshape", ["masked", "split"], ["heads"], name="heads"),
        helper.make_node("Transpose", ["heads"], ["new"], perm=[0, 2, 1, 3], name="new"),
        helper.make_node("MatMul", ["masked", "head"], ["logits"], name="logits"),
    ]
    for layer in range(LAYERS):
        for kind in ("key", "value"):
            there, then = f"past_key_values.{layer}.{kind}", f"present.{layer}.{kind}"
            inputs.append(value(there, TensorProto.FLOAT, (batch, HEADS, past, SIZE)))
            outputs.append(value(then, TensorProto.FLOAT, (batch, HEADS, f"{past} + {sequence}", SIZE)))
            nodes.append(helper.make_node("Concat", [there, "new"], [then], axis=2, name=then))
    weights = [
        weight("wte", random(VOCAB, WIDTH, seed=1)),
        weight("wpe", random(16, WIDTH, seed=2)),
        weight("head", random(WIDTH, VOCAB, seed=3)),
        weight("split", np.array([0, 0, HEADS, SIZE])),
    ]
    graph = helper.make_graph(nodes, "decoder", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def uncached() -> ModelProto:
    """Ids to logits."""
    model = good()
    for name in [each.name for each in model.graph.input if each.name != "input_ids"]:
        drop(model.graph.input, name)
    for name in [each.name for each in model.graph.output if each.name != "logits"]:
        drop(model.graph.output, name)
    del model.graph.node[:]
    model.graph.node.extend(
        [
            helper.make_node("Gather", ["wte", "input_ids"], ["tokens"], name="tokens"),
            helper.make_node("MatMul", ["tokens", "head"], ["logits"], name="logits"),
        ]
    )
    drop(model.graph.initializer, "wpe")
    drop(model.graph.initializer, "split")
    return model


def drop(items: object, name: str) -> None:
    """Removes the element of that name from a repeated field."""
    kept = [each for each in items if each.name != name]  # type: ignore[attr-defined]
    del items[:]  # type: ignore[attr-defined]
    items.extend(kept)  # type: ignore[attr-defined]


def of(items: object, name: str) -> object:
    """The element of that name in a repeated field."""
    return next(each for each in items if each.name == name)  # type: ignore[attr-defined]


def set_dims(model: ModelProto, name: str, dims: Sequence[Dim] | None) -> None:
    """Gives an input or output other dims."""
    for items in (model.graph.input, model.graph.output):
        for each in items:
            if each.name == name:
                each.CopyFrom(value(name, each.type.tensor_type.elem_type, dims))


def rename(model: ModelProto, old: str, new: str) -> None:
    """Renames a tensor wherever it is named."""
    for each in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        if each.name == old:
            each.name = new
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]


def after_masked(model: ModelProto, *nodes: NodeProto) -> None:
    """Puts nodes that turn the tensor `masked` into `changed` in front of the head."""
    head = next(i for i, node in enumerate(model.graph.node) if node.name == "logits")
    model.graph.node[head].input[0] = "changed"
    tail = list(model.graph.node[head:])
    del model.graph.node[head:]
    model.graph.node.extend([*nodes, *tail])


def save(model: ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    """Writes the model to `onnx/` of `folder`, where consumers look for it."""
    path = folder / "onnx" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def externalise(model: ModelProto, folder: Path, *, location: str = "model.onnx_data", align: int = 4096) -> Path:
    """Moves the weights of fractions into one file and returns its path; offsets are multiples of `align`."""
    path = folder / "onnx" / location
    path.parent.mkdir(parents=True, exist_ok=True)
    data = bytearray()
    for each in model.graph.initializer:
        if each.data_type != TensorProto.FLOAT:
            continue  # onnxruntime needs the shapes before it reads external data
        data += bytes(-len(data) % align)
        raw = numpy_helper.to_array(each).tobytes()
        point_at(each, location, len(data), len(raw))
        data += raw
    path.write_bytes(data)
    return path


def point_at(each: TensorProto, location: str, offset: int | str, length: int) -> None:
    """Makes a tensor's bytes external."""
    each.ClearField("raw_data")
    each.data_location = TensorProto.EXTERNAL
    del each.external_data[:]
    for key, entry in (("location", location), ("offset", str(offset)), ("length", str(length))):
        each.external_data.add(key=key, value=entry)


def findings(path: Path, **settings: object) -> tuple[Finding, ...]:
    """What a lint finds in one file."""
    return lint_file(path, LintSettings(**settings)).findings  # type: ignore[arg-type]


def codes(path: Path, **settings: object) -> set[str]:
    """The codes of what a lint finds in one file."""
    return {finding.code for finding in findings(path, **settings)}
