"""Codes and scales beside a plain float64 reading of what they are meant to be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gpt_export.weights.quantize.rounding import blocked, to_nearest
from gpt_export.weights.quantize.schemes import PLANS, Scheme, block_for

ROW_8, BLOCK_8, BLOCK_4 = Scheme(8, None), Scheme(8, 32), Scheme(4, 16)
SHAPES = [(1, 16), (3, 32), (7, 40), (5, 100), (130, 33)]


def normal(rows: int, width: int, spread: float = 0.02, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng([seed, rows, width])
    return torch.from_numpy((rng.standard_t(4, (rows, width)) * spread).astype(np.float32))


def restored(codes: torch.Tensor, scales: torch.Tensor, width: int) -> np.ndarray:
    """codes * scale in float64, without what a last block was filled up with."""
    whole = codes.double().numpy() * scales.double().numpy()[..., None]
    return whole.reshape(len(codes), -1)[:, :width]


def blocks_of(matrix: torch.Tensor, block: int | None) -> np.ndarray:
    """Float64 (rows, blocks, block), by hand."""
    values = matrix.double().numpy()
    block = block or values.shape[1]
    rows = [[*row, *[0.0] * (-len(row) % block)] for row in values]
    return np.array(rows).reshape(len(values), -1, block)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scheme", [ROW_8, BLOCK_8])
def test_8_bits_are_the_nearest_of_255_steps(shape: tuple[int, int], scheme: Scheme) -> None:
    matrix = normal(*shape)
    codes, scales = to_nearest(matrix, scheme)
    wanted = blocks_of(matrix, scheme.block)
    largest = np.abs(wanted).max(axis=-1)
    assert np.allclose(scales.double().numpy(), largest / 127, rtol=1e-6)
    error = np.abs(codes.double().numpy() * scales.double().numpy()[..., None] - wanted)
    assert (error <= 0.5001 * scales.double().numpy()[..., None]).all()
    assert codes.abs().max() == 127  # and -128 is not used


@pytest.mark.parametrize("shape", SHAPES)
def test_4_bits_are_never_worse_than_the_largest_weight_by_7(shape: tuple[int, int]) -> None:
    matrix = normal(*shape)
    codes, scales = to_nearest(matrix, BLOCK_4)
    wanted = blocks_of(matrix, BLOCK_4.block)
    step = np.abs(wanted).max(axis=-1, keepdims=True) / 7
    naive = np.clip(np.round(wanted / step), -8, 7) * step
    found = codes.double().numpy() * scales.double().numpy()[..., None]
    errors = [np.square(each - wanted).sum(axis=-1) for each in (found, naive)]
    assert (errors[0] <= errors[1] * (1 + 1e-5)).all()
    if wanted.shape[0] * wanted.shape[1] > 10:
        assert errors[0].sum() < 0.95 * errors[1].sum()
    assert codes.min() >= -8
    assert codes.max() <= 7


@pytest.mark.parametrize("scheme", [ROW_8, BLOCK_8, BLOCK_4])
def test_every_code_is_the_nearest_to_its_weight(scheme: Scheme) -> None:
    matrix = normal(9, 100)
    codes, scales = to_nearest(matrix, scheme)
    wanted, steps = blocks_of(matrix, scheme.block), scales.double().numpy()[..., None, None]
    every = np.arange(scheme.lowest, scheme.highest + 1) * steps
    best = np.abs(every - wanted[..., None]).min(axis=-1)
    assert np.allclose(np.abs(codes.double().numpy() * steps[..., 0] - wanted), best, atol=1e-6 * np.abs(wanted).max())


@pytest.mark.parametrize("scheme", [ROW_8, BLOCK_8, BLOCK_4])
def test_a_block_of_zeros_stays_zero_with_a_scale_of_1(scheme: Scheme) -> None:
    matrix = normal(4, 64)
    matrix[1] = 0
    matrix[2, :32] = 0
    codes, scales = to_nearest(matrix, scheme)
    assert torch.isfinite(scales).all()
    assert not codes[1].any()
    assert (scales[1] == 1).all()
    assert not restored(codes, scales, 64)[2, :32].any()


@pytest.mark.parametrize("size", [1e-44, 1e-38, 1e-30, 1e-20, 1e19, 1e30, 3e38])
@pytest.mark.parametrize("scheme", [ROW_8, BLOCK_8, BLOCK_4])
def test_weights_of_any_size_are_as_near_as_those_of_usual_size(size: float, scheme: Scheme) -> None:
    unit = normal(5, 64, spread=1.0)
    unit /= unit.abs().max()
    matrix = unit * size
    codes, scales = to_nearest(matrix, scheme)
    assert torch.isfinite(scales).all()
    assert (scales != 0).all()
    if size < 1e-37:  # below float32's normal numbers there is nothing left to divide
        assert np.abs(restored(codes, scales, 64) - matrix.double().numpy()).max() <= 1e-37
        return
    assert torch.equal(codes, to_nearest(unit, scheme)[0])


def test_a_width_that_no_block_divides_is_filled_up_with_zeros() -> None:
    matrix = normal(3, 41)
    assert [block_for(width) for width in (128, 192, 96, 48, 41)] == [128, 64, 32, 16, 16]
    assert torch.equal(blocked(matrix, 16).reshape(3, -1)[:, :41], matrix)
    assert not blocked(matrix, 16).reshape(3, -1)[:, 41:].any()
    codes, scales = to_nearest(matrix, Scheme(4, 16))
    assert (codes.shape, scales.shape) == ((3, 3, 16), (3, 3))
    assert not codes.reshape(3, -1)[:, 41:].any()


def test_rows_are_rounded_alike_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = normal(50, 64)
    whole = to_nearest(matrix, BLOCK_4)
    monkeypatch.setattr("gpt_export.weights.quantize.rounding._ROWS_AT_ONCE", 7)
    parts = to_nearest(matrix, BLOCK_4)
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


def test_every_plan_has_a_scheme_for_every_width() -> None:
    for plan in PLANS.values():
        for width in (1, 16, 24, 100, 768):
            assert plan.head(width).block in (16, 32, 64, 128)
            assert plan.body(width).block in (None, 16, 32, 64, 128)
