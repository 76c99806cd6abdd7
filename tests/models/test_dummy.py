from __future__ import annotations

from typing import Any

import pytest
import torch
from gpt_export_models import (
    GPT_CONFIG_124M,
    ConfigError,
    DummyGPTModel,
    DummyLayerNorm,
    DummyTransformerBlock,
    GPTConfig,
)
from torch import nn

BATCH = torch.tensor([[6109, 3626, 6100, 345], [6109, 1110, 6622, 257]])
""" "Every effort moves you" and "Every day holds a"."""
GOLDEN = torch.tensor(
    [
        [
            [-1.2034, 0.3201, -0.7130, -1.5548, -0.2390, -0.4667],
            [-0.1192, 0.4539, -0.4432, 0.2392, 1.3469, 1.2430],
            [0.5307, 1.6720, -0.4695, 1.1966, 0.0111, 0.5835],
            [0.0139, 1.6754, -0.3388, 1.1586, -0.0435, -1.0400],
        ],
        [
            [-1.0908, 0.1798, -0.9484, -1.6047, 0.2439, -0.4530],
            [-0.7860, 0.5581, -0.0610, 0.4835, -0.0077, 1.6621],
            [0.3567, 1.2698, -0.6398, -0.0162, -0.1296, 0.3717],
            [-0.2407, -0.7349, -0.5102, 2.0057, -0.3694, 0.1814],
        ],
    ]
)
"""First three and last three logits of each position: the book's output ("LLMs from scratch", chapter 4)."""
GOLDEN_LIMIT = 2e-4
"""Half of the last printed digit, and what another CPU's summation order may add."""
TINY = {
    "vocab_size": 31,
    "context_length": 8,
    "emb_dim": 6,
    "n_heads": 2,
    "n_layers": 3,
    "drop_rate": 0.5,
    "qkv_bias": False,
}


def ends(logits: torch.Tensor) -> torch.Tensor:
    return torch.cat([logits[..., :3], logits[..., -3:]], dim=-1).detach()


def farthest(logits: torch.Tensor) -> float:
    return float((ends(logits) - GOLDEN).abs().max())


@pytest.fixture(scope="module")
def fresh() -> tuple[DummyGPTModel, torch.Tensor]:
    """The model after seed 123, and its first output."""
    torch.manual_seed(123)
    model = DummyGPTModel(GPT_CONFIG_124M)
    return model, model(BATCH)


def test_seed_123_gives_the_books_logits_with_dropout_active(fresh: tuple[DummyGPTModel, torch.Tensor]) -> None:
    model, logits = fresh
    assert model.training
    assert logits.shape == (2, 4, 50257)
    assert logits.dtype == torch.float32
    assert farthest(logits) <= GOLDEN_LIMIT


def test_the_golden_values_tell_dropout_off_from_on(fresh: tuple[DummyGPTModel, torch.Tensor]) -> None:
    model, _ = fresh
    model.eval()
    try:
        assert farthest(model(BATCH)) > 100 * GOLDEN_LIMIT
    finally:
        model.train()


def test_the_golden_values_tell_another_order_of_creation() -> None:
    class HeadFirst(DummyGPTModel):
        def __init__(self, cfg: dict[str, Any]) -> None:
            nn.Module.__init__(self)
            self.out_head = nn.Linear(cfg["emb_dim"], cfg["vocab_size"], bias=False)
            self.tok_emb = nn.Embedding(cfg["vocab_size"], cfg["emb_dim"])
            self.pos_emb = nn.Embedding(cfg["context_length"], cfg["emb_dim"])
            self.drop_emb = nn.Dropout(cfg["drop_rate"])
            self.trf_blocks = nn.Sequential()
            self.final_norm = nn.Identity()

    torch.manual_seed(123)
    assert farthest(HeadFirst(GPT_CONFIG_124M)(BATCH)) > 100 * GOLDEN_LIMIT


def test_submodules_stand_in_the_books_order(fresh: tuple[DummyGPTModel, torch.Tensor]) -> None:
    model, _ = fresh
    assert [name for name, _ in model.named_children()] == [
        "tok_emb",
        "pos_emb",
        "drop_emb",
        "trf_blocks",
        "final_norm",
        "out_head",
    ]
    assert [type(block) for block in model.trf_blocks] == [DummyTransformerBlock] * 12
    assert isinstance(model.final_norm, DummyLayerNorm)
    assert model.out_head.bias is None
    assert model.drop_emb.p == 0.1
    assert {name: tuple(p.shape) for name, p in model.named_parameters()} == {
        "tok_emb.weight": (50257, 768),
        "pos_emb.weight": (1024, 768),
        "out_head.weight": (50257, 768),
    }


def test_a_dict_and_a_config_give_the_same_model() -> None:
    outputs = []
    for cfg in (TINY, GPTConfig.from_dict(TINY)):
        torch.manual_seed(7)
        outputs.append(DummyGPTModel(cfg)(torch.tensor([[1, 2, 3]])))
    assert torch.equal(*outputs)


def test_eval_logits_are_the_formula() -> None:
    torch.manual_seed(7)
    model = DummyGPTModel(TINY).eval()
    ids = torch.tensor([[1, 2, 30], [0, 0, 5]])
    weights = {name: tensor.detach().double().numpy() for name, tensor in model.named_parameters()}
    expected = (weights["tok_emb.weight"][ids.numpy()] + weights["pos_emb.weight"][:3]) @ weights["out_head.weight"].T
    assert torch.allclose(model(ids).double(), torch.from_numpy(expected), atol=1e-5)


def test_blocks_and_norm_return_their_input() -> None:
    x = torch.randn(2, 3, 6)
    assert DummyTransformerBlock(TINY)(x) is x
    assert DummyLayerNorm(6, eps=1e-6)(x) is x


def test_more_tokens_than_the_context_fail_in_eager() -> None:
    with pytest.raises(IndexError):
        DummyGPTModel(TINY)(torch.zeros((1, 9), dtype=torch.int64))


def test_an_invalid_dict_is_refused() -> None:
    with pytest.raises(ConfigError, match="lacks vocab_size"):
        DummyGPTModel({key: value for key, value in TINY.items() if key != "vocab_size"})
