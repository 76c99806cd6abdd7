"""Modules that keep tables in 16 bits, or round to 16 bits on their way, are exported and judged in float32."""

from __future__ import annotations

from pathlib import Path

import gpt_export
import numpy as np
import pytest
import torch
from gpt_export.runtime import Session
from gpt_export.sources.adapted import adapt
from gpt_export.sources.halves import computing_in_float32
from torch import Tensor, nn

IDS = torch.arange(24).reshape(2, 12) % 17


class Attention(nn.Module):
    """Tables of cosines in bfloat16, which it insists on; scores in bfloat16 as well if it is told so."""

    def __init__(self, rounding: bool) -> None:
        super().__init__()
        self.qkv, self.o = nn.Linear(16, 48, bias=False), nn.Linear(16, 16, bias=False)
        angles = torch.arange(32)[:, None] / 10 ** torch.linspace(0, 1, 4)
        self.register_buffer("cos", angles.cos().bfloat16())
        self.register_buffer("sin", angles.sin().bfloat16())
        self.rounding = rounding

    def turned(self, x: Tensor) -> Tensor:
        assert self.cos.dtype == torch.bfloat16
        cos, sin = self.cos[: x.shape[2]], self.sin[: x.shape[2]]
        first, second = x[..., :4], x[..., 4:]
        return torch.cat([first * cos + second * sin, second * cos - first * sin], 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(x.shape[0], x.shape[1], 3, 2, 8).permute(2, 0, 3, 1, 4)
        q, k = self.turned(q), self.turned(k)
        if self.rounding:
            q, k, v = q.to(torch.bfloat16), k.to(torch.bfloat16), v.bfloat16()
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(y.float().transpose(1, 2).reshape(x.shape))


class Model(nn.Module):
    def __init__(self, *, rounding: bool, out: torch.dtype = torch.float32) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.attention, self.head = nn.Embedding(17, 16), Attention(rounding), nn.Linear(16, 17)
        self.settings = {"dtype": out}
        self.context_length = 32

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids)
        return self.head(x + self.attention(x)).to(self.settings["dtype"])


def test_tables_in_16_bits_are_stored_wide_and_exact(tmp_path: Path) -> None:
    model = Model(rounding=False).eval()
    artifact = gpt_export.export(model, tmp_path / "a")
    assert not any("rounds to" in note for note in artifact.manifest.model["notes"])
    with torch.no_grad():
        expected = model(IDS).numpy()
    np.testing.assert_allclose(Session.open(artifact.folder).logits(IDS.numpy()), expected, atol=1e-5)


@pytest.mark.parametrize("out", [torch.float32, torch.bfloat16])
def test_code_that_rounds_on_its_way_is_exported_and_judged_in_float32(out: torch.dtype, tmp_path: Path) -> None:
    model = Model(rounding=True, out=out).eval()
    artifact = gpt_export.export(model, tmp_path / "a")
    assert any("rounds to bfloat16 on its way" in note for note in artifact.manifest.model["notes"])
    assert artifact.manifest.parity is not None
    assert artifact.manifest.parity["passed"]
    found = Session.open(artifact.folder).logits(IDS.numpy())
    with torch.no_grad():
        rounded, exact = model(IDS).float().numpy(), Model(rounding=False).eval()(IDS).numpy()
    np.testing.assert_allclose(found, exact, atol=1e-5)
    assert np.abs(rounded - exact).max() > 1e-4  # what is left out can be seen
    assert np.abs(rounded - found).max() < 0.05


def test_the_reference_makes_no_16_bit_floats_and_leaves_the_module_as_it_was() -> None:
    model = Model(rounding=True).eval()
    with torch.no_grad():
        wide, before, exact = computing_in_float32(model), model(IDS), Model(rounding=False).eval()(IDS)
        torch.testing.assert_close(wide(IDS), exact)
        assert torch.equal(model(IDS), before)
    assert not torch.equal(before, exact)


class Scratch(nn.Module):
    """What is attended to goes through a buffer in bfloat16, as those who write a cache by hand have it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head = nn.Embedding(17, 16), nn.Linear(16, 17)
        self.register_buffer("scratch", torch.zeros(8, 32, 16, dtype=torch.bfloat16), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids)
        self.scratch[: x.shape[0], : x.shape[1]] = x.bfloat16()
        return self.head(x + self.scratch[: x.shape[0], : x.shape[1]].float().cumsum(1))


def test_what_is_written_into_a_16_bit_buffer_is_not_lost() -> None:
    model = Scratch().eval()
    reference = adapt(model).reference()
    with torch.no_grad():
        assert (reference(IDS) - model(IDS)).abs().max() < 0.05
        assert (reference(IDS) - model.head(model.table(IDS))).abs().max() > 0.1  # the keys are not zeros


class Autocast(Model):
    def forward(self, ids: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return super().forward(ids).float()


def test_autocast_in_the_code_is_left_out(tmp_path: Path) -> None:
    artifact = gpt_export.export(Autocast(rounding=False).eval(), tmp_path / "a")
    assert any("rounds to bfloat16 on its way" in note for note in artifact.manifest.model["notes"])
    with torch.no_grad():
        exact = Model(rounding=False).eval()(IDS).numpy()
    np.testing.assert_allclose(Session.open(artifact.folder).logits(IDS.numpy()), exact, atol=1e-5)
