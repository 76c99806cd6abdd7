"""A model that gives NaN is refused with what makes it: a weight, or the part that overflows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gpt_export.gate.finiteness import broken_cause, is_broken
from torch import nn

from tests.byte_gpt import byte_gpt

IDS = np.arange(5)[None]


def scores(module: nn.Module) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = module(torch.from_numpy(IDS)).numpy()
    return found


def test_a_nan_weight_is_named_with_its_count() -> None:
    module = byte_gpt()
    with torch.no_grad():
        module.get_parameter("trf_blocks.1.ff.layers.0.weight")[:, 0] = torch.nan
    assert is_broken(scores(module))
    said = broken_cause(module, IDS)
    assert "trf_blocks.1.ff.layers.0.weight holds 96 NaN among 2304 elements" in said


@pytest.mark.parametrize("layer", [0, 1])
def test_an_overflow_is_named_by_the_part_that_makes_it(layer: int) -> None:
    module = byte_gpt()
    with torch.no_grad():
        for part in (0, 2):
            module.get_parameter(f"trf_blocks.{layer}.ff.layers.{part}.weight").mul_(1e25)
    assert is_broken(scores(module))
    said = broken_cause(module, IDS)
    assert f"trf_blocks.{layer}.ff.layers.2 (Linear) makes them of finite numbers" in said
    assert "an overflow of float32" in said


def test_nan_of_code_outside_of_modules_is_placed_in_front_of_the_next_one() -> None:
    class Divides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(7, 4), nn.Linear(4, 7)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            x = self.embed(ids)
            return self.head((x - x) / (x - x))  # type: ignore[no-any-return]

    assert "made in front of head (Linear)" in broken_cause(Divides().eval(), IDS)


def test_minus_infinity_is_a_mask_and_no_fault() -> None:
    assert not is_broken(np.array([[0.0, -np.inf]]))
    assert is_broken(np.array([[0.0, np.inf]]))
    assert not is_broken(scores(byte_gpt()))
