"""Bytes counted by hand, on graphs small enough to do so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from gpt_export.artifact.element_sizes import size_bytes
from gpt_export.bench.bytes_read import bytes_per_token
from onnx import TensorProto, helper, numpy_helper

from tests.byte_gpt import CONFIG

ROWS, WIDTH = 7, 4


def saved(folder: Path, nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], output: str = "y") -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, 1])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph), path)
    return path


TABLE = np.ones((ROWS, WIDTH), dtype=np.float32)
GATHER = helper.make_node("Gather", ["table", "ids"], ["row"])


def test_a_table_that_is_only_gathered_from_does_not_count(tmp_path: Path) -> None:
    nodes = [GATHER, helper.make_node("MatMul", ["row", "w"], ["y"])]
    path = saved(tmp_path, nodes, {"table": TABLE, "w": np.ones((WIDTH, 3), np.float32)})
    assert bytes_per_token(path) == WIDTH * 3 * 4


def test_a_table_that_the_head_multiplies_by_counts_once(tmp_path: Path) -> None:
    nodes = [
        GATHER,
        helper.make_node("Transpose", ["table"], ["head"], perm=[1, 0]),
        helper.make_node("MatMul", ["row", "head"], ["y"]),
    ]
    assert bytes_per_token(saved(tmp_path, nodes, {"table": TABLE})) == ROWS * WIDTH * 4


@pytest.mark.parametrize(("read", "expected"), [(True, ROWS * WIDTH * 4), (False, 0)])
def test_views_are_followed_to_what_reads_them(tmp_path: Path, read: bool, expected: int) -> None:
    flat = helper.make_node("Flatten", ["table"], ["flat"])
    last = (
        helper.make_node("MatMul", ["row", "flat"], ["y"])
        if read
        else helper.make_node("Gather", ["flat", "ids"], ["y"])
    )
    assert bytes_per_token(saved(tmp_path, [GATHER, flat, last], {"table": TABLE})) == expected


def test_packed_tables_and_their_scales_are_gathered_from_too(tmp_path: Path) -> None:
    inputs = ["table", "ids", "scales"]
    node = helper.make_node("GatherBlockQuantized", inputs, ["y"], domain="com.microsoft")
    path = saved(tmp_path, [node], {"table": np.ones((ROWS, WIDTH), np.uint8), "scales": TABLE})
    assert bytes_per_token(path) == 0


def test_a_weight_that_nothing_uses_does_not_count(tmp_path: Path) -> None:
    assert (
        bytes_per_token(
            saved(tmp_path, [helper.make_node("Gather", ["table", "ids"], ["y"])], {"table": TABLE, "w": TABLE})
        )
        == 0
    )


def test_four_bits_count_half_a_byte() -> None:
    tensor = helper.make_tensor("w", TensorProto.UINT4, [3, 3], [1] * 9)
    assert size_bytes(tensor) == 5
    assert size_bytes(numpy_helper.from_array(TABLE.astype(np.float16))) == ROWS * WIDTH * 2


def test_an_exported_gpt_reads_its_weights_without_the_embeddings(byte_original: Path) -> None:
    width, layers, vocabulary = CONFIG["emb_dim"], CONFIG["n_layers"], CONFIG["vocab_size"]
    attention = 4 * width * width + width  # the book's projection has a bias, its queries, keys and values have none
    block = attention + 8 * width * width + 5 * width + 4 * width
    parameters = layers * block + 2 * width + vocabulary * width
    found = bytes_per_token(byte_original / "onnx" / "model.onnx")
    assert 0 <= found - 4 * parameters < 256  # and the graph's few constants: shapes, axes, an epsilon
