from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from gpt_export.gate.noise import in_double, measure_noise
from torch import Tensor, nn

from tests import samples


def test_noise_is_the_largest_float32_error_over_the_scale_of_the_logits() -> None:
    module = samples.tiny_gpt()
    ids = samples.random_ids(1, 20)
    single = samples.eager_logits(module, ids).astype(np.float64)
    double = samples.eager_logits(samples.tiny_gpt().double(), ids)
    expected = np.abs(single - double).max() / np.sqrt((double**2).mean())
    assert 0 < expected < 1e-5
    assert measure_noise(module, ids) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("make", [samples.tiny_gpt, samples.Tied, samples.Buffers, samples.Scalar])
def test_measuring_noise_puts_every_weight_back(make: type[nn.Module]) -> None:
    module = make().eval()
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    copies = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    measure_noise(module, samples.random_ids(1, 5))
    after = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    assert after.keys() == tensors.keys()
    for name, tensor in after.items():
        assert tensor is tensors[name]
        assert tensor.dtype == copies[name].dtype
        assert tensor.equal(copies[name])
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def test_weights_come_back_when_the_forward_fails() -> None:
    class Fails(samples.Plain):
        def forward(self, ids: Tensor) -> Tensor:
            super().forward(ids)
            raise RuntimeError("half way")

    module = Fails()
    with pytest.raises(RuntimeError, match="half way"), in_double(module):
        module(torch.zeros((1, 1), dtype=torch.int64))
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def test_the_module_runs_in_float64_inside() -> None:
    module = samples.tiny_gpt()
    ids = torch.from_numpy(samples.random_ids(2, 5))
    with in_double(module), torch.no_grad():
        inside = module(ids)
    assert inside.dtype == torch.float64
    assert torch.equal(inside, samples.tiny_gpt().double()(ids).detach())


def test_a_module_that_does_not_run_in_float64_has_no_measured_noise() -> None:
    class Casts(samples.WithEmbedding):
        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.emb(ids).to(torch.float32))

    assert measure_noise(Casts(), samples.random_ids(1, 3)) is None


def test_a_forward_that_reads_its_submodules_weights_is_measured_too() -> None:
    class Reads(samples.WithEmbedding):
        def forward(self, ids: Tensor) -> Tensor:
            return self.emb(ids) @ self.head.weight.T

    noise = measure_noise(samples.seeded(Reads()), samples.random_ids(1, 3))
    assert noise is not None
    assert 0 < noise < 1e-5


def test_the_limits_on_the_124m_skeleton_never_reach_a_thousandth_of_its_logits(artifact_124m: Path) -> None:
    parity = json.loads((artifact_124m / "parity.json").read_text())
    results = [case for cases in parity["cases"].values() for case in cases]
    assert len(results) > 20
    for case in results:
        assert case["limit"] < 1e-4 * case["scale"], case["name"]
        assert case["limit_source"] == "probe"


class WithMask(nn.Module):
    """Makes its mask in float32, in its forward, for attention of torch's own."""

    def __init__(self, *, whole: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(29, 16)
        self.mixer = nn.MultiheadAttention(16, 2, batch_first=True)
        self.whole = whole

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.table(ids)
        length = ids.shape[1]
        mask = torch.triu(torch.full((length, length), float("-inf")), diagonal=1)
        if self.whole:
            mixed: torch.Tensor = self.mixer(x, x, x, attn_mask=mask, need_weights=False)[0]
            return mixed
        return nn.functional.scaled_dot_product_attention(x, x, x, mask)


@pytest.mark.parametrize("whole", [True, False])
def test_a_mask_made_in_float32_hides_in_float64_what_it_hides_in_float32(*, whole: bool) -> None:
    torch.manual_seed(5)
    noise = measure_noise(WithMask(whole=whole).eval(), np.arange(18).reshape(2, 9) % 29)
    assert noise is not None
    assert noise < 1e-5
