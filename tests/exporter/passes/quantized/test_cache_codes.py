"""A cache of 8 bits in many dialects: its operator against NumPy, whole graphs against their float cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from gpt_export.errors import GraphError
from gpt_export.passes import cache_passes, fused_passes, portable_passes, run_passes
from gpt_export.passes.quantized.cache_codes import attentions
from gpt_export.passes.quantized.cache_scales import MARGIN, cache_scales
from onnx import TensorProto, helper, numpy_helper

from tests.exporter.passes.fused.decoders import CONTEXT, DIALECTS, VOCAB, Decoder, graph_of, seeded
from tests.exporter.passes.fused.running import FEEDS, feed, run

Array = np.ndarray
Scales = Mapping[str, Array]
HEADS, PAIRS, WIDTH = 4, 2, 16
WITHIN = 0.06
"""Of the largest logit: two layers whose keys and values are rounded to 8 bits."""


def quantized(array: Array, scale: Array) -> Array:
    return np.clip(np.rint(array / scale), -128, 127).astype(np.int8)


def operator(scales: list[Array], window: int) -> ort.InferenceSession:
    """One GroupQueryAttention over a cache of 8 bits, with a bias and the sink that takes no attention."""
    names = ["query", "key", "value", "past_key", "past_value", "last", "total", "", "", "", "bias", "sink", "k", "v"]
    attributes = {"num_heads": HEADS, "kv_num_heads": PAIRS, "kv_cache_bit_width": 8}
    attributes |= {"local_window_size": window} if window else {}
    node = helper.make_node(
        "GroupQueryAttention", names, ["out", "present_key", "present_value"], domain="com.microsoft",
        k_quant_type="PER_CHANNEL", v_quant_type="PER_CHANNEL", **attributes,
    )  # fmt: skip
    kinds = {"past_key": TensorProto.INT8, "past_value": TensorProto.INT8}
    kinds |= {"last": TensorProto.INT32, "total": TensorProto.INT32}
    axes = {"query": 3, "key": 3, "value": 3, "last": 1, "total": 0}
    fed = [name for name in names if name not in ("", "sink", "k", "v")]
    inputs = [
        helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), [None] * axes.get(name, 4))
        for name in fed
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.INT8 if "p" in name else TensorProto.FLOAT, None)
        for name in node.output
    ]
    sink = np.full(HEADS, -6e4, np.float32)
    weights = [
        numpy_helper.from_array(array, name) for name, array in zip(("sink", "k", "v"), [sink, *scales], strict=True)
    ]
    graph = helper.make_graph([node], "attention", inputs, outputs, weights)
    domains = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=8)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def attended(query: Array, key: Array, value: Array, bias: Array, past: int, window: int) -> Array:
    """In float64: query (batch, new, heads x width) over key and value (batch, pairs, total, width)."""
    batch, new, _ = query.shape
    heads = query.reshape(batch, new, HEADS, WIDTH).swapaxes(1, 2).astype(np.float64)
    key, value = (np.repeat(each, HEADS // PAIRS, axis=1).astype(np.float64) for each in (key, value))
    rows, columns = np.arange(new)[:, None] + past, np.arange(key.shape[2])[None]
    seen = (columns <= rows) & (columns > rows - (window or key.shape[2]))
    scores = np.where(seen, heads @ key.swapaxes(2, 3) / np.sqrt(WIDTH) + bias, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return (weights @ value).swapaxes(1, 2).reshape(batch, new, -1)


@pytest.mark.parametrize("window", [0, 5])
@pytest.mark.parametrize(("batch", "past", "new"), [(2, 0, 7), (1, 9, 5), (3, 9, 1), (1, 300, 70)])
def test_the_operator_computes_with_codes_times_scales(batch: int, past: int, new: int, window: int) -> None:
    """The kernel's contract, on which every such file rests: what it rounds, what it hides, what it attends to."""
    rng = np.random.default_rng(5)
    total = past + new
    key, value = (
        (rng.normal(size=(batch, PAIRS, total, WIDTH)) * np.exp(rng.normal(size=(1, PAIRS, 1, WIDTH)))).astype("f4")
        for _ in range(2)
    )
    scales = [(np.abs(each).max(axis=(0, 2), keepdims=True) / 127).astype(np.float32) for each in (key, value)]
    bias = np.zeros((batch, 1, new, total), np.float32)
    bias[1:, :, :, :3] = -3e4
    query = rng.normal(size=(batch, new, HEADS * WIDTH)).astype(np.float32)
    codes = [quantized(each, scale) for each, scale in zip((key, value), scales, strict=True)]
    fresh = [each[:, :, past:].swapaxes(1, 2).reshape(batch, new, -1) for each in (key, value)]
    given = {"query": query, "key": fresh[0], "value": fresh[1], "bias": bias}
    given |= {"past_key": codes[0][:, :, :past], "past_value": codes[1][:, :, :past]}
    given |= {"last": np.full(batch, total - 1, np.int32), "total": np.array(total, np.int32)}
    out, *presents = operator(scales, window).run(None, given)
    for present, wanted in zip(presents, codes, strict=True):
        assert np.array_equal(present, wanted)
    numbers = [each * scale for each, scale in zip(codes, scales, strict=True)]
    wanted = attended(query, *numbers, bias, past, window)
    real = np.ones((batch, new), bool)
    real[1:, : max(0, 3 - past)] = False
    assert np.abs(out - wanted)[real].max() <= 1e-5 * np.abs(wanted).max()


@pytest.fixture(scope="module", params=["llama", "gemma", "alibi", "sinks", "neox"])
def decoder(request: pytest.FixtureRequest) -> Decoder:
    return seeded(DIALECTS[str(request.param)])


@pytest.fixture(scope="module")
def fused(decoder: Decoder) -> ir.Model:
    return fused_of(decoder)


def fused_of(decoder: Decoder) -> ir.Model:
    weights = decoder.state_dict()
    names = {name: name for name in weights}
    return run_passes(graph_of(decoder), [*portable_passes(names), *fused_passes(weights, CONTEXT)])


def texts() -> list[Array]:
    rng = np.random.default_rng(2)
    return [rng.integers(0, VOCAB, (12, CONTEXT)), rng.integers(0, VOCAB, (1, 5))]


@pytest.fixture(scope="module")
def scales(fused: ir.Model, decoder: Decoder) -> Scales:
    return cache_scales(fused, decoder.state_dict(), texts())


def both(
    fused: ir.Model, coded: ir.Model, decoder: Decoder, scales: Scales, given: dict[str, Array]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """What both graphs make of the same past, which the one has as codes and the other as what they stand for."""
    codes, numbers = dict(given), dict(given)
    for name in given:
        if name.startswith("past_key_values."):
            scale = scales[name.replace("past_key_values", "present")]
            codes[name] = quantized(given[name] * scale * 40, scale)
            numbers[name] = codes[name] * scale
    return run(fused, decoder, numbers), run(coded, decoder, codes)


@pytest.mark.parametrize("what", FEEDS)
def test_a_graph_with_codes_is_the_graph_with_floats_but_for_rounding(
    what: str, fused: ir.Model, decoder: Decoder, scales: Scales
) -> None:
    coded = run_passes(fused, cache_passes(scales))
    given = feed(decoder, **FEEDS[what])
    plain, found = both(fused, coded, decoder, scales, given)
    assert list(found) == list(plain)
    mask = given["attention_mask"].astype(bool)
    new = given["input_ids"].shape[1]
    error = np.abs(found["logits"] - plain["logits"])[mask[:, -new:]]
    assert error.max() <= WITHIN * np.abs(plain["logits"]).max()
    for name, scale in scales.items():
        if name.startswith("present.0."):  # of later layers what is rounded has been through rounded ones
            inside = np.abs(plain[name]) < 127 * scale
            off = np.abs(found[name] * scale - plain[name])
            assert found[name].dtype == np.int8
            assert (off <= 0.51 * scale)[np.broadcast_to(inside, off.shape)].all()


def test_scales_that_are_too_small_are_no_rounding(fused: ir.Model, decoder: Decoder, scales: Scales) -> None:
    """The control of the test above: what is cut off shows in the logits."""
    small = {name: scale / 6 for name, scale in scales.items()}
    given = feed(decoder, **FEEDS["prompt"])
    plain, found = both(fused, run_passes(fused, cache_passes(small)), decoder, small, given)
    assert np.abs(found["logits"] - plain["logits"]).max() > 2 * WITHIN * np.abs(plain["logits"]).max()


def test_the_graph_says_what_its_cache_is(fused: ir.Model, scales: Scales) -> None:
    coded = run_passes(fused, cache_passes(scales))
    proto = ir.to_proto(coded)
    cached = [value for value in (*proto.graph.input, *proto.graph.output) if "key" in value.name and "." in value.name]
    kept = [value for value in cached if value.name.startswith(("past_key_values.", "present."))]
    assert {value.type.tensor_type.elem_type for value in kept} == {TensorProto.INT8}
    for node in attentions(coded):
        attributes = {name: node.attributes[name].value for name in ("kv_cache_bit_width", "k_quant_type")}
        assert attributes == {"kv_cache_bit_width": 8, "k_quant_type": "PER_CHANNEL"}
    assert {value.dtype for value in fused.graph.outputs} == {ir.DataType.FLOAT}  # the one given is left as it was


def test_a_scale_is_the_largest_of_its_channel_and_some_room(fused: ir.Model, decoder: Decoder, scales: Scales) -> None:
    first = "present.0.value"
    found = []
    for ids in texts():
        mask = np.ones_like(ids)
        given: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "position_ids": np.cumsum(mask, 1) - 1}
        probe = feed(decoder, batch=len(ids), past=0, new=ids.shape[1], padded=(0,) * len(ids))
        found.append(np.abs(run(fused, decoder, {**probe, **given})[first]).max(axis=(0, 2), keepdims=True))
    largest = np.max(found, axis=0)
    assert (scales[first] * 127 >= largest * MARGIN * (1 - 1e-5)).all()
    assert (scales[first] * 127 <= largest * MARGIN * 1.01).all()


def test_a_channel_of_zeros_has_a_scale_above_zero() -> None:
    decoder = seeded(DIALECTS["llama"])
    decoder.blocks[0].attention.value.weight.data[:3] = 0  # type: ignore[index, union-attr]
    found = cache_scales(fused_of(decoder), decoder.state_dict(), texts())
    assert all((scale > 0).all() and np.isfinite(scale).all() for scale in found.values())
    assert found["present.0.value"].min() < 1e-3 * found["present.0.value"].max()


def test_attention_that_is_not_the_operators_is_refused_with_its_reason() -> None:
    decoder = seeded(DIALECTS["tiled"])
    with pytest.raises(GraphError, match="the cache of layer 0 cannot have 8 bits") as caught:
        cache_scales(fused_of(decoder), decoder.state_dict(), texts())
    assert "leave --kv-cache int8 out" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_graph_without_a_cache_is_refused() -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    made = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1])
    node = helper.make_node("Identity", ["x"], ["logits"])
    proto: onnx.ModelProto = helper.make_model(helper.make_graph([node], "plain", [value], [made]))
    with pytest.raises(GraphError, match="there is no cache that could have 8 bits"):
        attentions(ir.from_proto(proto))
