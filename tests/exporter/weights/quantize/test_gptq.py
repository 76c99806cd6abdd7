"""Rounding for what a layer reads: its output is nearer than that of rounding to nearest, by an oracle in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gpt_export.weights.quantize.gptq import rounded_for_inputs
from gpt_export.weights.quantize.rounding import to_nearest
from gpt_export.weights.quantize.schemes import Scheme

WIDTH, ROWS, TOKENS = 96, 40, 2000


def correlated(seed: int = 0, width: int = WIDTH) -> torch.Tensor:
    """Inputs (tokens, width) that few directions make up most of."""
    rng = np.random.default_rng([3, seed])
    mixed = rng.normal(size=(TOKENS, 12)) @ rng.normal(size=(12, width)) + 0.3 * rng.normal(size=(TOKENS, width))
    return torch.from_numpy(mixed.astype(np.float32))


def matrix(rows: int = ROWS, width: int = WIDTH) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(5).normal(0, 0.05, (rows, width)).astype(np.float32))


def output_error(x: torch.Tensor, weight: torch.Tensor, coded: tuple[torch.Tensor, torch.Tensor]) -> float:
    codes, scales = (part.double().numpy() for part in coded)
    stored = (codes * scales[..., None]).reshape(len(weight), -1)[:, : weight.shape[1]]
    difference = x.double().numpy() @ (stored - weight.double().numpy()).T
    return float(np.square(difference).sum())


@pytest.mark.parametrize("width", [96, 41])
@pytest.mark.parametrize("bits", [4, 8])
def test_the_outputs_are_nearer_than_those_of_rounding_to_nearest(bits: int, width: int) -> None:
    x, weight, scheme = correlated(width=width), matrix(width=width), Scheme(bits, 32 if width == 96 else 16)
    x, other = x[:1500], x[1500:]
    found = rounded_for_inputs(weight, x.T @ x, scheme)
    naive = to_nearest(weight, scheme)
    assert [part.shape for part in found] == [part.shape for part in naive]
    assert [part.dtype for part in found] == [part.dtype for part in naive]
    assert output_error(x, weight, found) < 0.5 * output_error(x, weight, naive)
    # And on inputs that it was not made for.
    assert output_error(other, weight, found) < 0.5 * output_error(other, weight, naive)


def test_inputs_without_correlation_round_to_nearest() -> None:
    weight, scheme = matrix(), Scheme(4, 32)
    found = rounded_for_inputs(weight, 7.0 * torch.eye(WIDTH), scheme)
    codes, scales = to_nearest(weight, scheme)
    assert torch.equal(found[1], scales)
    differs = found[0] != codes
    assert differs.float().mean() < 1e-3  # ties, which float64 breaks another way
    assert (found[0].int() - codes.int()).abs().max() <= 1


def test_any_multiple_of_the_second_moment_gives_the_same() -> None:
    x, weight, scheme = correlated(), matrix(), Scheme(4, 32)
    first, second = (rounded_for_inputs(weight, factor * (x.T @ x), scheme) for factor in (1.0, 2.0**-10))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_an_input_that_is_never_read_does_no_harm() -> None:
    x, weight, scheme = correlated(), matrix(), Scheme(4, 32)
    x[:, 5] = 0
    codes, scales = rounded_for_inputs(weight, x.T @ x, scheme)
    assert torch.isfinite(scales).all()
    stored = (codes * scales.unsqueeze(-1)).reshape(ROWS, -1)
    assert (stored[:, 5] - weight[:, 5]).abs().max() <= scales.abs().max()


def test_a_layer_that_reads_nothing_rounds_to_nearest() -> None:
    weight, scheme = matrix(), Scheme(4, 32)
    codes, scales = rounded_for_inputs(weight, torch.zeros(WIDTH, WIDTH), scheme)
    assert torch.isfinite(scales).all()
    assert (codes != to_nearest(weight, scheme)[0]).float().mean() < 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_given_stays_as_it_was_and_the_same_comes_out_again(dtype: torch.dtype) -> None:
    x, weight, scheme = correlated(), matrix(), Scheme(4, 32)
    moment = (x.T @ x).to(dtype)
    kept = moment.clone(), weight.clone()
    first, second = (rounded_for_inputs(weight, moment, scheme) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(moment, kept[0])
    assert torch.equal(weight, kept[1])
