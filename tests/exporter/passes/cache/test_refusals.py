"""What has no cache is refused by name: the operator, the layer, and what it does to positions."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from gpt_export.passes.cache import CacheRefusedError, derive_cache
from onnx import helper

from tests.exporter.passes.cache.feeding import derived


@pytest.mark.parametrize(
    ("name", "operator", "layer", "what"),
    [
        ("causal_convolution", "Conv", "blocks.0.mixer.conv", "no rule that says what it does to positions"),
        ("cumulative_mean", "CumSum", "blocks.0.mixer", "works along the sequence"),
        ("bidirectional_in_one_layer", "Softmax", "blocks.1", "is not causal"),
        ("mask_off_by_one", "Softmax", "blocks.0", "is not causal"),
        ("norm_over_text", "ReduceMean", "blocks.0.feed", "works along the sequence"),
        ("mean_over_batch", "ReduceMean", "blocks.0.feed", "works along the batch"),
        ("triangular_mean", "MatMul", "blocks.0.mixer", "sums over the sequence outside of attention"),
        ("token_shift", "Pad", "blocks.0.mixer", "positions"),
        ("long_rope_switch", "Mul", "blocks.0.mixer", "change with the length of the text where that is above 24"),
    ],
)
def test_the_sentence_names_the_operator_its_layer_and_what_it_does(
    name: str, operator: str, layer: str, what: str
) -> None:
    with pytest.raises(CacheRefusedError) as refused:
        derived(name)
    sentence = str(refused.value)
    assert sentence.startswith(f"no cache is derived, because {operator} ")
    assert layer in sentence
    assert what in sentence
    assert "\n" not in sentence


def graph(nodes: list[onnx.NodeProto], weights: dict[str, tuple[int, ...]], kind: int = 1) -> ir.Model:
    """`nodes` from `input_ids` to `logits`, with weights as further inputs."""
    inputs = [helper.make_tensor_value_info("input_ids", onnx.TensorProto.INT64, ["b", "s"])]
    inputs += [helper.make_tensor_value_info(name, kind, shape) for name, shape in weights.items()]
    outputs = [helper.make_tensor_value_info("logits", kind, ["b", "s", 7])]
    made = helper.make_graph(nodes, "g", inputs, outputs)
    return ir.from_proto(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))


def lookup() -> onnx.NodeProto:
    return helper.make_node("Gather", ["emb", "input_ids"], ["x"], "look_up")


def test_a_graph_without_attention_has_nothing_to_cache() -> None:
    with pytest.raises(CacheRefusedError, match="no operator of the graph looks at other positions"):
        derive_cache(graph([lookup(), helper.make_node("Identity", ["x"], ["logits"])], {"emb": (5, 7)}))


def test_weights_of_half_precision_are_refused() -> None:
    with pytest.raises(CacheRefusedError, match="the weight emb is float16"):
        derive_cache(graph([lookup(), helper.make_node("Identity", ["x"], ["logits"])], {"emb": (5, 7)}, kind=10))


def test_an_operator_of_another_domain_is_refused_by_name() -> None:
    node = helper.make_node("Mystery", ["x"], ["logits"], "/blocks.3/mix/Mystery", domain="com.example")
    with pytest.raises(CacheRefusedError, match=r"Mystery /blocks\.3/mix/Mystery in blocks\.3\.mix has no rule"):
        derive_cache(graph([lookup(), node], {"emb": (5, 7)}))


def attention(mask: np.ndarray) -> ir.Model:
    """One head without positions whose scores get `mask` added, (context, context), as a buffer that is cut."""
    node = helper.make_node
    nodes = [
        lookup(),
        node("Transpose", ["x"], ["k"], perm=[0, 2, 1]),
        node("MatMul", ["x", "k"], ["scores"], "scores"),
        node("Shape", ["input_ids"], ["t"], start=1, end=2),
        node("Concat", ["t", "t"], ["ends"], axis=0),
        node("Constant", [], ["starts"], value_ints=[0, 0]),
        node("Slice", ["mask", "starts", "ends"], ["cut"]),
        node("Add", ["scores", "cut"], ["masked"]),
        node("Softmax", ["masked"], ["weights"], "/only/Softmax", axis=-1),
        node("MatMul", ["weights", "x"], ["logits"], "mix"),
    ]
    return graph(nodes, {"emb": (5, 7), "mask": mask.shape})


def causal(context: int = 40) -> np.ndarray:
    return np.triu(np.full((context, context), -np.inf, np.float32), 1)


def test_a_mask_in_a_buffer_is_causal_only_if_its_numbers_say_so() -> None:
    from gpt_export.weights.layout import Layout, set_layout

    model = attention(causal())
    for value in model.graph.inputs[1:]:
        set_layout(value, Layout.of(str(value.name)))
    assert derive_cache(model, {"mask": causal}).longest == 40
    with pytest.raises(CacheRefusedError, match="is not causal"):
        derive_cache(model)  # nobody knows the numbers
    leaking = causal()
    leaking[3, 5] = 0
    with pytest.raises(CacheRefusedError, match="is not causal"):
        derive_cache(model, {"mask": lambda: leaking})
    late = causal()
    late[30, 35] = 0  # beyond the lengths that are tried first
    with pytest.raises(CacheRefusedError, match="is not causal"):
        derive_cache(model, {"mask": lambda: late})
