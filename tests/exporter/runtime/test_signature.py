"""The shape of a cache, pair by pair, and what the manifest says of it."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from gpt_export.runtime.grown_cache import GrownDecoding
from gpt_export.runtime.shared_cache import SharedDecoding
from gpt_export.runtime.signature import PAST, CacheShape, LayerCache, cached
from onnx import TensorProto, helper

UNLIKE = CacheShape(
    (LayerCache(n_heads=2, key_dim=8, value_dim=8), LayerCache(n_heads=1, key_dim=4, value_dim=16)),
)


def test_layers_that_are_alike_are_written_in_three_numbers() -> None:
    alike = CacheShape.alike(n_layers=3, n_heads=4, head_dim=8)
    assert alike.to_dict() == {"n_layers": 3, "n_heads": 4, "head_dim": 8}
    assert CacheShape.from_dict(alike.to_dict()) == alike


@pytest.mark.parametrize(
    "layers",
    [UNLIKE.layers, UNLIKE.layers[1:], UNLIKE.layers[:1] + UNLIKE.layers[:1]],
    ids=["unlike", "wider values", "alike"],
)
def test_every_shape_comes_back_from_the_manifest(layers: tuple[LayerCache, ...]) -> None:
    shape = CacheShape(layers)
    assert CacheShape.from_dict(shape.to_dict()) == shape


def test_the_signature_has_each_pair_with_its_own_heads_and_widths() -> None:
    specs = {spec.name: spec.dims for spec in cached(97, UNLIKE).inputs}
    assert specs["past_key_values.0.value"] == ("batch_size", 2, PAST, 8)
    assert specs["past_key_values.1.key"] == ("batch_size", 1, PAST, 4)
    assert specs["past_key_values.1.value"] == ("batch_size", 1, PAST, 16)


def counting_graph(shape: CacheShape) -> ort.InferenceSession:
    """A graph that appends the new ids to every key and value, and answers with the sum of its past and new slots."""
    signature = cached(4, shape)
    kinds = {"int64": TensorProto.INT64, "float32": TensorProto.FLOAT}
    inputs = [helper.make_tensor_value_info(s.name, kinds[s.dtype], list(s.dims)) for s in signature.inputs]
    outputs = [helper.make_tensor_value_info(s.name, kinds[s.dtype], None) for s in signature.outputs]
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["new"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["new", "axes"], ["new4"]),
    ]
    initializers = [helper.make_tensor("axes", TensorProto.INT64, [2], [1, 3])]
    sums = []
    pairs = zip(shape.past_names(), shape.present_names(), shape.empty_shapes(1).values(), strict=True)
    for past, present, (_, heads, _, width) in pairs:
        initializers.append(helper.make_tensor(f"{past}_times", TensorProto.INT64, [4], [1, heads, 1, width]))
        nodes += [
            helper.make_node("Tile", ["new4", f"{past}_times"], [f"{past}_new"]),
            helper.make_node("Concat", [past, f"{past}_new"], [present], axis=2),
            helper.make_node("ReduceSum", [present], [f"{past}_sum"], keepdims=0),
        ]
        sums.append(f"{past}_sum")
    initializers.append(helper.make_tensor("shape", TensorProto.INT64, [3], [1, 1, 1]))
    nodes += [helper.make_node("Sum", sums, ["total"]), helper.make_node("Reshape", ["total", "shape"], ["logits"])]
    graph = helper.make_graph(nodes, "counting", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return ort.InferenceSession(model.SerializeToString())


def test_the_grown_cache_keeps_pairs_of_unlike_widths() -> None:
    decoding = GrownDecoding(counting_graph(UNLIKE), UNLIKE, 1, np.dtype(np.float32))
    numbers_a_token = 2 * 8 + 2 * 8 + 4 + 16
    fed = [[1, 2, 3], [4], [5, 6]]
    sums = [float(decoding.feed(np.array([ids]), np.ones((1, len(ids)), np.int64)).item()) for ids in fed]
    assert sums == [6 * numbers_a_token, 10 * numbers_a_token, 21 * numbers_a_token]


def test_the_shared_cache_has_one_piece_of_memory_and_a_buffer_for_each_width() -> None:
    session = counting_graph(UNLIKE)
    decoding = SharedDecoding(session, UNLIKE, 2, 600, np.dtype(np.float32))
    decoding._append(np.ones((2, 3), np.int64), np.ones((2, 3), np.int64))
    shapes = [buffer.shape for buffer in decoding._buffers]
    assert shapes == [(2, 2, 256, 8), (2, 2, 256, 8), (2, 1, 256, 4), (2, 1, 256, 16)]
    (memory,) = {id(buffer.base) for buffer in decoding._buffers}
    assert memory
    for buffer in decoding._buffers:
        buffer[:, :, :3] = buffer.shape[3]
    decoding._length = 3
    decoding._append(np.ones((2, 400), np.int64), np.ones((2, 400), np.int64))
    for buffer in decoding._buffers:
        assert buffer.shape[2] == 512
        assert (buffer[:, :, :3] == buffer.shape[3]).all()
        assert not buffer[:, :, 3:].any()
