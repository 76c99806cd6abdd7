"""The pieces of the pass by themselves: how axes are cut anew, Einsum, and what a mask is."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from gpt_export.passes.cache.axes import BATCH, ROWS, TRIED, Axes, axes_of_shapes, axis, regroup
from gpt_export.passes.cache.bands import Band
from gpt_export.passes.cache.einsums import parse, rewrite_einsum
from onnx import helper
from onnx.reference import ReferenceEvaluator

B, S = (BATCH,), (ROWS,)


def sizes(*axes: tuple[int | str, ...]) -> list[tuple[int, ...]]:
    """Of each axis, its lengths at the sizes that are tried."""
    return [tuple(tried.of(of) for tried in TRIED) for of in axes]


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((B, S, (32,)), (B, S, (4,), (8,))),
        ((B, S, (4,), (8,)), (B, S, (32,))),
        ((B, (4,), S, (8,)), ((BATCH, 4), S, (8,))),
        (((BATCH, 4), S, (8,)), (B, (4,), S, (8,))),
        ((B, S, (32,)), ((BATCH, ROWS), (32,))),
        (((BATCH, ROWS, 2), (32,)), (B, S, (2,), (32,))),
        ((B, S), (B, (), S)),
    ],
)
def test_axes_are_cut_anew_in_their_order(source: Axes, target: Axes) -> None:
    assert regroup(source, sizes(*target)) == target


@pytest.mark.parametrize(
    ("source", "target"),
    [((B, S, (32,)), (S, B, (32,))), ((B, S, (4,)), (B, (2,), (ROWS, 2))), ((B, S), (B, S, (2,)))],
)
def test_axes_that_would_mix_positions_are_not_cut(source: Axes, target: Axes) -> None:
    assert regroup(source, sizes(*target)) is None


def test_an_axis_that_is_no_product_of_the_sizes_has_no_meaning() -> None:
    assert axes_of_shapes([(5, 7, 3), (11, 13, 3)]) == (B, S, (3,))
    assert axes_of_shapes([(3,), (6,)]) is None
    assert axis(2, 3, BATCH, 1, 4) == (6, BATCH, 4)


@pytest.mark.parametrize(
    "equation",
    [
        "bhqd,bhkd->bhqk",
        "bqhd,bkhd->bhqk",
        "bhqk,bkhd->bqhd",
        "btd,hdk->bhtk",
        "bthd,hde->bte",
        "b,d->bd",
        "bqd,bkd->bkq",
    ],
)
def test_an_einsum_is_a_product_between_transpositions(equation: str) -> None:
    lengths = dict(zip("bhqkdte", (2, 3, 4, 5, 6, 7, 8), strict=True))
    random = np.random.default_rng(0)
    left, right = equation.split("->")[0].split(",")
    arrays = [random.standard_normal([lengths[c] for c in side]).astype(np.float32) for side in (left, right)]
    values = [helper.make_tensor_value_info(n, 1, a.shape) for n, a in zip("xy", arrays, strict=True)]
    node = helper.make_node("Einsum", ["x", "y"], ["z"], "e", equation=equation)
    made = helper.make_graph([node], "g", values, [helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, None)])
    model = ir.from_proto(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))
    rewrite_einsum(model.graph, model.graph[0])
    assert all(each.op_type != "Einsum" for each in model.graph)
    found = ReferenceEvaluator(ir.to_proto(model)).run(None, dict(zip("xy", arrays, strict=True)))[0]
    np.testing.assert_allclose(found, np.einsum(equation, *arrays), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("equation", ["ii,ij->ij", "...d,de->...e", "ab,bc,cd->ad", "ab,cb->a"])
def test_an_einsum_that_is_no_single_product_is_left(equation: str) -> None:
    assert parse(equation) is None


def test_a_band_is_the_diagonal_and_what_its_window_sees() -> None:
    expected = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]], bool)
    assert np.array_equal(Band(2).matrix(4), expected)
    assert np.array_equal(Band(None).matrix(4), np.tril(np.ones((4, 4), bool)))
