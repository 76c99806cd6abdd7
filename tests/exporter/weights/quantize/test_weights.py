"""What is stored, read back by onnxruntime's own operators: the identity goes in, the matrix comes out."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from gpt_export.gate.codes_check import read_back
from gpt_export.weights.layout import Coded, Layout
from gpt_export.weights.quantize.rounding import to_nearest
from gpt_export.weights.quantize.schemes import Scheme, block_for
from gpt_export.weights.quantize.weights import QuantizedWeights, stored_codes, stored_scales
from onnx import TensorProto, helper, numpy_helper

ROWS = 24
WIDTHS = (48, 64, 128, 256)
EXACT = 2.0**-22


def matrix(width: int, rows: int = ROWS) -> torch.Tensor:
    rng = np.random.default_rng([8, width])
    return torch.from_numpy((rng.normal(size=(rows, width)) * rng.uniform(0.1, 3, (rows, 1))).astype(np.float32))


def stored(weight: torch.Tensor, bits: int, block: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two tensors of a file, and what they stand for in float64."""
    codes, scales = to_nearest(weight, Scheme(bits, block))
    meant = (codes.double() * scales.double().unsqueeze(-1)).reshape(len(weight), -1)[:, : weight.shape[1]]
    parts = stored_codes(codes, Coded("codes", bits, block)), stored_scales(scales, Coded("scales", bits, block))
    return parts[0].numpy(), parts[1].numpy(), meant.numpy()


def run(node: Any, initializers: dict[str, np.ndarray], feed: dict[str, np.ndarray]) -> np.ndarray:
    types = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "uint8": TensorProto.UINT8}
    inputs = [helper.make_tensor_value_info(name, types[str(x.dtype)], x.shape) for name, x in feed.items()]
    graph = helper.make_graph(
        [node],
        "one",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in initializers.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feed)[0]


def product_by_blocks(codes: np.ndarray, scales: np.ndarray, x: np.ndarray, bits: int, block: int, level: int) -> Any:
    node = helper.make_node(
        "MatMulNBits",
        ["x", "codes", "scales"],
        ["y"],
        domain="com.microsoft",
        K=x.shape[1],
        N=len(codes),
        bits=bits,
        block_size=block,
        accuracy_level=level,
    )
    return run(node, {"codes": codes, "scales": scales}, {"x": x})


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("bits", [4, 8])
def test_matmulnbits_multiplies_by_the_matrix_that_was_meant(bits: int, width: int) -> None:
    block = block_for(width)
    codes, scales, meant = stored(matrix(width), bits, block)
    found = product_by_blocks(codes, scales, np.eye(width, dtype=np.float32), bits, block, level=0).T
    assert np.abs(found - meant).max() <= EXACT * np.abs(meant).max()


@pytest.mark.parametrize("bits", [4, 8])
def test_at_the_level_of_the_export_only_the_activations_are_rounded(bits: int) -> None:
    block = block_for(128)
    codes, scales, meant = stored(matrix(128), bits, block)
    x = np.random.default_rng(0).normal(size=(5, 128)).astype(np.float32)
    found = product_by_blocks(codes, scales, x, bits, block, level=4)
    wanted = x.astype(np.float64) @ meant.T
    # Half a step of 127 in each activation of a block, all at their worst.
    bound = np.abs(x).max() / 127 / 2 * np.abs(meant).sum(axis=1).max()
    assert 0 < np.abs(found - wanted).max() <= bound


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("bits", [4, 8])
def test_gatherblockquantized_looks_the_same_rows_up(bits: int, width: int) -> None:
    block = block_for(width)
    codes, scales, meant = stored(matrix(width), bits, block)
    node = helper.make_node(
        "GatherBlockQuantized",
        ["codes", "ids", "scales"],
        ["y"],
        domain="com.microsoft",
        bits=bits,
        block_size=block,
        gather_axis=0,
        quantize_axis=1,
    )
    ids = np.array([3, 0, ROWS - 1, 3], np.int64)
    found = run(node, {"codes": codes.reshape(ROWS, -1), "scales": scales}, {"ids": ids})[:, :width]
    assert np.abs(found - meant[ids]).max() <= EXACT * np.abs(meant).max()


@pytest.mark.parametrize("width", WIDTHS)
def test_matmulintegertofloat_multiplies_by_the_matrix_that_was_meant(width: int) -> None:
    codes, scales, meant = stored(matrix(width), 8, None)
    assert codes.shape == (width, ROWS)
    node = helper.make_node(
        "MatMulIntegerToFloat", ["x", "codes", "one", "scales", "zero"], ["y"], domain="com.microsoft"
    )
    given = {"codes": codes, "scales": scales, "one": np.array(1, np.float32), "zero": np.array(128, np.uint8)}
    identity = (128 + np.eye(width)).astype(np.uint8)
    found = run(node, given, {"x": identity}).T
    assert np.abs(found - meant).max() <= EXACT * np.abs(meant).max()


@pytest.mark.parametrize(("bits", "block"), [(8, None), (8, 16), (4, 16), (4, 64)])
def test_the_gates_own_reading_is_onnxruntimes(bits: int, block: int | None) -> None:
    codes, scales, meant = stored(matrix(72), bits, block)
    found = read_back(codes, scales, Coded("codes", bits, block), 5, 9, 72)
    assert np.abs(found - meant[5:14]).max() <= EXACT * np.abs(meant).max()


def test_a_matrix_of_several_sources_is_rounded_as_one_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = to_nearest
    monkeypatch.setattr(
        "gpt_export.weights.quantize.weights.to_nearest", lambda m, s: calls.append(m.shape) or original(m, s)
    )
    weights = {name: matrix(64) * factor for name, factor in (("q", 1.0), ("k", 2.0), ("v", 3.0))}
    layouts = [Layout(("q", "k", "v"), coded=Coded(part, 4, 64)) for part in ("codes", "scales")]
    stored_weights = QuantizedWeights(weights, layouts)
    codes, scales = (stored_weights[layout.inputs[0]] for layout in layouts)
    assert calls == [(3 * ROWS, 64)]
    assert codes.shape == (3 * ROWS, 1, 32)
    for place, name in enumerate(weights):
        alone = to_nearest(weights[name], Scheme(4, 64))
        rows = slice(place * ROWS, (place + 1) * ROWS)
        assert torch.equal(codes[rows], stored_codes(alone[0], Coded("codes", 4, 64)))
        assert torch.equal(scales[rows], alone[1])
    assert torch.equal(stored_weights["q"], weights["q"])
    assert set(stored_weights) == {"q", "k", "v", *(layout.inputs[0] for layout in layouts)}
    assert len(stored_weights) == 5
