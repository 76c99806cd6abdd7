"""For each rule a fault that it must find, and what is close to it and must not be found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper

from tests.exporter.linting.graphs import (
    HEADS,
    SIZE,
    VOCAB,
    WIDTH,
    after_masked,
    drop,
    externalise,
    good,
    of,
    point_at,
    random,
    rename,
    save,
    set_dims,
    uncached,
    value,
    weight,
)

Planted = Callable[[Path], Path]
"""Writes a model below a folder and returns its file."""
MATRIX = (64, 32)
CONTRIB = "com.microsoft"


def changed(change: Callable[[ModelProto], None], base: Callable[[], ModelProto] = good) -> Planted:
    """The good model with a change."""

    def plant(folder: Path) -> Path:
        model = base()
        change(model)
        return save(model, folder)

    return plant


def dims(name: str, *new: int | str | None) -> Planted:
    return changed(lambda model: set_dims(model, name, new))


def adding(*weights: TensorProto) -> Planted:
    """The good model with more weights, all of them read."""

    def change(model: ModelProto) -> None:
        model.graph.initializer.extend(weights)
        nodes = [helper.make_node("Shape", [each.name], [f"{each.name}_shape"], name=each.name) for each in weights]
        nodes += [helper.make_node("Size", [f"{each.name}_shape"], [f"{each.name}_size"]) for each in weights]
        last = "masked"
        for i, each in enumerate(weights):
            out = "changed" if i == len(weights) - 1 else f"step_{i}"
            nodes.append(helper.make_node("Cast", [f"{each.name}_size"], [f"{each.name}_one"], to=TensorProto.FLOAT))
            nodes.append(helper.make_node("Mul", [last, f"{each.name}_one"], [out]))
            last = out
        after_masked(model, *nodes)

    return changed(change)


def constant(array: np.ndarray) -> Planted:
    """The good model with a Constant node."""

    def change(model: ModelProto) -> None:
        nodes = [
            helper.make_node("Constant", [], ["tril"], value=weight("", array), name="tril"),
            helper.make_node("Size", ["tril"], ["size"]),
            helper.make_node("Cast", ["size"], ["one"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["masked", "one"], ["changed"]),
        ]
        after_masked(model, *nodes)

    return changed(change)


def node(operator: str, *more: str, domain: str = "", opset: int = 1, **attributes: object) -> Planted:
    """The good model with one more node in front of the head."""

    def change(model: ModelProto) -> None:
        if domain:
            model.opset_import.append(helper.make_opsetid(domain, opset))
        made = helper.make_node(operator, ["masked", *more], ["changed"], name="added", domain=domain, **attributes)
        after_masked(model, made)

    return changed(change)


def dynamically_quantized(*, through_reshape: bool) -> Planted:
    """The good model with a product of integers in front of the head, whose activations share one scale."""

    def change(model: ModelProto) -> None:
        model.graph.initializer.extend(
            [weight("codes", np.eye(WIDTH, dtype=np.int8)), weight("same", np.array([0, 0, -1], np.int64))]
        )
        read = "reshaped" if through_reshape else "quantized"
        nodes = [helper.make_node("DynamicQuantizeLinear", ["masked"], ["quantized", "scale", "zero"], name="quantize")]
        if through_reshape:
            nodes.append(helper.make_node("Reshape", ["quantized", "same"], [read], name="reshape"))
        nodes += [
            helper.make_node("MatMulInteger", [read, "codes", "zero"], ["product"], name="product"),
            helper.make_node("Cast", ["product"], ["floats"], to=TensorProto.FLOAT, name="floats"),
            helper.make_node("Mul", ["floats", "scale"], ["changed"], name="scaled"),
        ]
        after_masked(model, *nodes)

    return changed(change)


def dropout(training: bool | None) -> Planted:
    """A Dropout whose mode is a constant, or computed if None."""

    def change(model: ModelProto) -> None:
        model.graph.initializer.append(weight("ratio", np.float32(0.1)))
        nodes = [helper.make_node("Dropout", ["masked", "ratio", "mode"], ["changed"], name="dropout")]
        if training is None:
            nodes.insert(0, helper.make_node("Cast", ["any"], ["mode"], to=TensorProto.BOOL))
        else:
            model.graph.initializer.append(weight("mode", np.bool_(training)))
        after_masked(model, *nodes)

    return changed(change)


def batch_norm(training: int) -> Planted:
    def change(model: ModelProto) -> None:
        names = ("scale", "bias", "mean", "var")
        # width on axis 1, where the operator wants channels
        model.graph.initializer.extend(weight(name, np.ones(WIDTH, np.float32)) for name in names)
        outputs = ["normed", "m", "v"] if training else ["normed"]
        norm = helper.make_node("BatchNormalization", ["swapped", *names], outputs, training_mode=training, name="norm")
        swap = helper.make_node("Transpose", ["masked"], ["swapped"], perm=[0, 2, 1])
        after_masked(model, swap, norm, helper.make_node("Transpose", ["normed"], ["changed"], perm=[0, 2, 1]))

    return changed(change)


def data(change: Callable[[ModelProto, Path], None], **how: object) -> Planted:
    """The good model with external data, then changed."""

    def plant(folder: Path) -> Path:
        model = good()
        path = externalise(model, folder, **how)  # type: ignore[arg-type]
        change(model, path)
        return save(model, folder)

    return plant


def cut(_model: ModelProto, path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def append(count: int) -> Callable[[ModelProto, Path], None]:
    def change(_model: ModelProto, path: Path) -> None:
        path.write_bytes(path.read_bytes() + bytes(count))

    return change


def link_out(_model: ModelProto, path: Path) -> None:
    elsewhere = path.parent.parent.parent / f"elsewhere_{path.parent.parent.name}"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def shape_out(model: ModelProto, path: Path) -> None:
    """Moves the shape of the Reshape behind the weights."""
    end = -(-path.stat().st_size // 4096) * 4096
    path.write_bytes(path.read_bytes().ljust(end, b"\0") + np.array([0, 0, HEADS, SIZE]).tobytes())
    repoint("split", path.name, end, 32)(model, path)


def axes_out(model: ModelProto, path: Path) -> None:
    """Has a ReduceMax read its axes from the file of the weights."""
    end = -(-path.stat().st_size // 4096) * 4096
    path.write_bytes(path.read_bytes().ljust(end, b"\0") + np.array([0, 1]).tobytes())
    model.graph.initializer.append(weight("axes", np.array([0, 1])))
    next(each for each in model.graph.node if each.name == "any").input.append("axes")
    repoint("axes", path.name, end, 16)(model, path)


def link_like_a_cache(_model: ModelProto, path: Path) -> None:
    """Links the data as Hugging Face's cache does; `linked` links the model."""
    blobs = path.parent.parent / "blobs"
    blobs.mkdir()
    path.rename(blobs / "data")
    path.symlink_to("../blobs/data")


def linked(plant: Planted) -> Planted:
    """What `plant` writes, with the model among the blobs and a link in its place."""

    def plant_linked(folder: Path) -> Path:
        path = plant(folder)
        path.rename(folder / "blobs" / "model")
        path.symlink_to("../blobs/model")
        return path

    return plant_linked


def link_inside(_model: ModelProto, path: Path) -> None:
    path.rename(path.parent / "data")
    path.symlink_to("data")


def repoint(name: str, location: str, offset: int | str, length: int) -> Callable[[ModelProto, Path], None]:
    return lambda model, _path: point_at(of(model.graph.initializer, name), location, offset, length)  # type: ignore[arg-type]


def fused(*, bias: bool) -> Planted:
    """GroupQueryAttention, with the attention_bias input that came later."""
    inputs = ["masked", "masked", "past", "past", "lengths", "total"] + (["", "", "", "masked"] if bias else [])
    return node("GroupQueryAttention", *inputs, domain=CONTRIB, num_heads=HEADS, kv_num_heads=HEADS)


def shared_buffer(folder: Path, *, wanted: bool = True) -> Path:
    (folder / "genai_config.json").write_text(json.dumps({"search": {"past_present_share_buffer": wanted}}))
    return save(good(), folder)


def reversed_pasts(model: ModelProto) -> None:
    pasts = [each for each in model.graph.input if each.name.startswith("past")]
    for each in pasts:
        drop(model.graph.input, each.name)
    model.graph.input.extend(reversed(pasts))


def without_input(name: str) -> Callable[[ModelProto], None]:
    """Turns an input into a weight, as if the model never asked for it."""

    def change(model: ModelProto) -> None:
        drop(model.graph.input, name)
        model.graph.initializer.append(weight(name, np.ones((1, 1), np.int64)))

    return change


def float_mask(model: ModelProto) -> None:
    of(model.graph.input, "attention_mask").type.tensor_type.elem_type = TensorProto.FLOAT  # type: ignore[attr-defined]


def overridable(name: str, array: np.ndarray) -> Callable[[ModelProto], None]:
    def change(model: ModelProto) -> None:
        model.graph.initializer.append(weight(name, array))
        model.graph.input.append(value(name, TensorProto.FLOAT, array.shape))
        after_masked(model, helper.make_node("Mul", ["masked", name], ["changed"]))

    return change


def transposed_head(model: ModelProto, *, through_add: bool = False) -> None:
    drop(model.graph.initializer, "head")
    model.graph.initializer.append(weight("turned", random(VOCAB, WIDTH, seed=5)))
    operator = helper.make_node("Transpose", ["turned"], ["head"], perm=[1, 0], name="turn")
    position = next(i for i, each in enumerate(model.graph.node) if each.name == "logits")
    model.graph.node.insert(position, operator)
    if through_add:
        model.graph.node.insert(position + 1, helper.make_node("Neg", ["head"], ["negated"]))
        model.graph.node[position + 2].input[1] = "negated"


def nans(model: ModelProto) -> None:
    array = random(VOCAB, WIDTH)
    array[3, 4] = np.nan
    of(model.graph.initializer, "wte").CopyFrom(weight("wte", array))  # type: ignore[attr-defined]


def repeated_output(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("Identity", ["x"], ["masked"], name="again"))


def misaligned(folder: Path) -> Path:
    model = good()
    of(model.graph.initializer, "wpe").CopyFrom(weight("wpe", random(256, WIDTH, seed=2)))  # type: ignore[attr-defined]
    externalise(model, folder, align=16)
    return save(model, folder)


TRIL = np.tril(np.ones((64, 64), np.float32))
LEFT = random(*MATRIX, seed=7)

FAULTS: dict[str, list[Planted]] = {
    "GX001": [changed(repeated_output)],
    "GX101": [
        dims("input_ids", 1, "sequence_length"),
        dims("logits", 2, "sequence_length", VOCAB),
        dims("past_key_values.1.value", 1, HEADS, "past_sequence_length", SIZE),
        dims("present.0.key", 1, HEADS, "total", SIZE),
    ],
    "GX102": [
        dims("input_ids", "batch_size", 8),
        dims("attention_mask", "batch_size", 8),
        dims("logits", "batch_size", 8, VOCAB),
        dims("past_key_values.0.key", "batch_size", HEADS, 8, SIZE),
    ],
    "GX103": [dims("logits", "batch_size", 1, VOCAB)],
    "GX104": [changed(lambda model: of(model.graph.output, "logits").ClearField("type"))],  # type: ignore[attr-defined]
    "GX105": [changed(lambda model: set_dims(model, "logits", None))],
    "GX106": [dims("logits", "batch_size", None, VOCAB)],
    "GX111": [
        adding(weight("mask", TRIL)),
        adding(weight("mask", TRIL.astype(bool).reshape(1, 1, 64, 64))),
        adding(weight("mask", np.where(TRIL == 1, 0, np.finfo(np.float16).min).astype(np.float16))),
        adding(weight("mask", np.where(TRIL == 1, 0, -np.inf).astype(np.float32))),
        constant(np.tril(np.ones((1, 1, 100, 100), np.uint8))),
    ],
    "GX121": [
        adding(weight("one", LEFT), weight("two", LEFT)),
        adding(weight("packed", LEFT.reshape(64, 2, 16)), weight("flat", LEFT)),
    ],
    "GX122": [adding(weight("one", LEFT), weight("two", np.ascontiguousarray(LEFT.T)))],
    "GX131": [dropout(True)],
    "GX132": [dropout(None)],
    "GX133": [batch_norm(1)],
    "GX134": [node("RandomNormalLike"), node("Bernoulli")],
    "GX135": [node("Adam", domain="ai.onnx.preview.training")],
    "GX141": [dynamically_quantized(through_reshape=False), dynamically_quantized(through_reshape=True)],
    "GX201": [data(lambda _model, path: path.unlink())],
    "GX202": [data(cut), data(repoint("wte", "model.onnx_data", 0, 8))],
    "GX203": [
        data(link_out),
        data(repoint("wte", "/etc/hostname", 0, VOCAB * WIDTH * 4)),
        data(repoint("wte", "../outside", 0, VOCAB * WIDTH * 4)),
    ],
    "GX204": [data(repoint("head", "model.onnx_data", 4, VOCAB * WIDTH * 4))],
    "GX205": [misaligned],
    "GX206": [data(append(5000))],
    "GX207": [data(repoint("wte", "model.onnx_data", "first", 8)), data(repoint("wte", "", 0, 8))],
    "GX208": [data(shape_out), data(axes_out)],
    "GX304": [node("PackedAttention", "masked", domain=CONTRIB)],
    "GX311": [node("Softmaxx"), node("Upsample", "split")],
    "GX312": [node("Magic", domain="somebody"), node("NobodysOperator", domain=CONTRIB)],
    "GX313": [changed(lambda model: after_masked(model, helper.make_node("M", ["masked"], ["changed"], domain="d")))],
    "GX314": [changed(lambda model: setattr(model.opset_import[0], "version", 99))],
    "GX401": [
        changed(lambda model: rename(model, "logits", "scores")),
        changed(lambda model: rename(model, "attention_mask", "mask_of_attention")),
    ],
    "GX402": [changed(reversed_pasts)],
    "GX403": [
        dims("logits", "batch_size", "time", VOCAB),
        dims("logits", "batch_size", "past_sequence_length+1", VOCAB),
    ],
    "GX404": [dims("past_key_values.0.key", "batch_size", "past_sequence_length", WIDTH)],
    "GX405": [changed(without_input("position_ids"))],
    "GX406": [changed(lambda _model: None, uncached)],
    "GX411": [lambda folder: save(good(), folder, "decoder.onnx")],
    "GX412": [data(lambda _model, _path: None, location="weights.bin")],
    "GX413": [
        changed(lambda model: rename(model, "past_key_values.0.key", "past.0.key")),
        changed(lambda model: rename(model, "present.1.value", "new.1.value")),
        changed(lambda model: rename(model, "input_ids", "ids")),
    ],
    "GX414": [
        dims("past_key_values.0.key", "batch", HEADS, "past_sequence_length", SIZE),
        dims("past_key_values.0.key", "batch_size", "heads", "past_sequence_length", SIZE),
        dims("past_key_values.0.key", "batch_size", HEADS, 5, SIZE),
    ],
    "GX421": [
        changed(lambda model: rename(model, "past_key_values.0.key", "past.0.key")),
        changed(lambda model: rename(model, "present.1.value", "new.1.value")),
        changed(lambda model: rename(model, "logits", "scores")),
    ],
    "GX422": [changed(float_mask)],
    "GX423": [
        dims("past_key_values.0.key", "batch_size", "past_sequence_length", WIDTH),
        changed(lambda model: rename(model, "past_key_values.0.key", "past_key_values.0.keys")),
    ],
    "GX424": [shared_buffer],
    "GX425": [changed(without_input("attention_mask"))],
    "GX426": [changed(lambda _model: None, uncached)],
    "GX431": [dims("logits", 1, "sequence_length", VOCAB), dims("input_ids")],
    "GX432": [changed(lambda model: rename(model, "position_ids", "position ids"))],
    "GX501": [changed(lambda model: model.graph.initializer.append(weight("idle", LEFT)))],
    "GX502": [changed(overridable("gain", np.ones(WIDTH, np.float32)))],
    "GX503": [changed(lambda model: model.graph.node.append(helper.make_node("Neg", ["x"], ["nowhere"], name="n")))],
    "GX511": [changed(nans)],
    "GX512": [adding(weight("big", np.array([1.0, np.inf], np.float16)))],
    "GX513": [adding(weight("double", np.ones(3)))],
    "GX521": [changed(transposed_head)],
}
"""By code. `GX301` to `GX303` need a target: test_versions.py has them."""


NEAR_MISSES: dict[str, list[Planted]] = {
    "GX101": [dims("past_key_values.0.key", "b", HEADS, "past_sequence_length", SIZE)],
    "GX102": [
        dims("logits", "batch_size", 1, VOCAB),
        dims("past_key_values.0.key", "batch_size", HEADS, SIZE, "past_sequence_length"),  # keys stored transposed
    ],
    "GX103": [dims("logits", "batch_size", "kept", VOCAB)],
    "GX111": [
        adding(weight("square", random(64, 64))),
        adding(weight("zeros", np.zeros((64, 64), np.float32))),
        adding(weight("small", TRIL[:63, :63])),
        adding(weight("oblong", np.tril(np.ones((64, 65), np.float32)))),
        constant(np.arange(64 * 64).reshape(64, 64)),
    ],
    "GX121": [
        adding(weight("one", np.zeros(MATRIX, np.float32)), weight("two", np.zeros(MATRIX, np.float32))),
        adding(weight("one", np.ones(2000, np.float32)), weight("two", np.ones(2000, np.float32))),
        adding(weight("one", LEFT), weight("two", np.where(np.arange(32) == 9, 0, LEFT).astype(np.float32))),
        adding(weight("one", LEFT[:4, :4].copy()), weight("two", LEFT[:4, :4].copy())),
        data(repoint("head", "model.onnx_data", 0, VOCAB * WIDTH * 4)),
    ],
    "GX122": [adding(weight("one", LEFT), weight("two", np.ascontiguousarray(LEFT.T[::-1, ::-1])))],
    "GX131": [dropout(False), node("Dropout")],
    "GX132": [dropout(False), dropout(True)],
    "GX133": [batch_norm(0)],
    "GX203": [data(link_inside), linked(data(link_like_a_cache))],
    "GX204": [data(lambda _model, _path: None)],
    "GX205": [data(lambda _model, _path: None, align=16)],  # all below a page
    "GX206": [data(append(100))],
    "GX304": [fused(bias=True)],
    "GX312": [fused(bias=True)],
    "GX403": [dims("logits", "batch_size", "2 * sequence_length", VOCAB)],
    "GX405": [changed(lambda _model: None, uncached)],
    "GX424": [lambda folder: shared_buffer(folder, wanted=False)],
    "GX502": [changed(overridable("scale", np.array(1, np.float32)))],
    "GX512": [
        adding(weight("mask", np.array([0, -np.inf], np.float32))),
        adding(weight("limit", np.array(np.inf, np.float32))),
    ],
    "GX513": [adding(weight("epsilon", np.array(1e-5)))],
    "GX521": [changed(lambda model: transposed_head(model, through_add=True))],
}
"""By code. The good model is a near miss of every rule."""
