"""Faults that only a cache has, planted before publication: the gate must catch each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gpt_export_models.gpt import GPTDecoder, GPTModel, MultiHeadAttention
from torch import Tensor

from tests.byte_gpt import save_byte_gpt
from tests.conftest import Run


@torch.jit.export
def forgets_the_past(self: Any, attention_mask: Tensor, n_new: int, like: Tensor) -> Tensor:
    """The causal mask as if new tokens came first: right without a past."""
    n_all = attention_mask.shape[1]
    key_at = torch.arange(n_all, device=attention_mask.device)
    query_at = torch.arange(n_new, device=attention_mask.device)
    allowed = (key_at.unsqueeze(0) <= query_at.unsqueeze(1)) & (attention_mask > 0).unsqueeze(1).unsqueeze(1)
    return torch.zeros_like(allowed, dtype=like.dtype).masked_fill(~allowed, self.mask_fill)


@torch.jit.export
def off_by_one(self: Any, attention_mask: Tensor, n_new: int, like: Tensor) -> Tensor:
    """The causal mask one place too far: a query sees the token after itself."""
    n_all = attention_mask.shape[1]
    key_at = torch.arange(n_all, device=attention_mask.device)
    query_at = torch.arange(n_new, device=attention_mask.device) + (n_all - n_new) + 1
    allowed = (key_at.unsqueeze(0) <= query_at.unsqueeze(1)) & (attention_mask > 0).unsqueeze(1).unsqueeze(1)
    return torch.zeros_like(allowed, dtype=like.dtype).masked_fill(~allowed, self.mask_fill)


@torch.jit.export
def ignores_padding(self: Any, attention_mask: Tensor, n_new: int, like: Tensor) -> Tensor:
    """The causal mask alone."""
    n_all = attention_mask.shape[1]
    key_at = torch.arange(n_all, device=attention_mask.device)
    query_at = torch.arange(n_new, device=attention_mask.device) + (n_all - n_new)
    seen = (attention_mask >= 0).unsqueeze(1).unsqueeze(1)
    allowed = (key_at.unsqueeze(0) <= query_at.unsqueeze(1)) & seen
    return torch.zeros_like(allowed, dtype=like.dtype).masked_fill(~allowed, self.mask_fill)


@torch.jit.export
def ignores_positions(self: Any, input_ids: Tensor, position_ids: Tensor) -> Tensor:
    """Positions counted from the first new token, whatever comes before it."""
    x: Tensor = self.drop_emb(self.tok_emb(input_ids) + self.pos_emb(position_ids - position_ids[:, :1]))
    return x


def joins_the_wrong_end(
    self: Any, x_bte: Tensor, bias_b1ts: Tensor, past_key_bhpd: Tensor, past_value_bhpd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention with the past behind the new tokens: right without a past."""
    query = self.split_heads(self.W_query(x_bte)) * self.query_scale
    key = torch.cat([self.split_heads(self.W_key(x_bte)), past_key_bhpd], dim=2)
    value = torch.cat([self.split_heads(self.W_value(x_bte)), past_value_bhpd], dim=2)
    mixed = (torch.softmax(query @ key.transpose(2, 3) + bias_b1ts, dim=-1) @ value).transpose(1, 2)
    return self.out_proj(mixed.reshape(mixed.shape[0], mixed.shape[1], self.n_heads * self.head_dim)), key, value


def joins_the_wrong_axis(
    self: Any, x_bte: Tensor, bias_b1ts: Tensor, past_key_bhpd: Tensor, past_value_bhpd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention with a past whose heads are taken for places: right without a past."""
    query = self.split_heads(self.W_query(x_bte)) * self.query_scale
    places = (past_key_bhpd.shape[0], past_key_bhpd.shape[2], past_key_bhpd.shape[1], past_key_bhpd.shape[3])
    new_key, new_value = self.split_heads(self.W_key(x_bte)), self.split_heads(self.W_value(x_bte))
    key = torch.cat([past_key_bhpd.reshape(places), new_key.transpose(1, 2)], dim=1).transpose(1, 2)
    value = torch.cat([past_value_bhpd.reshape(places), new_value.transpose(1, 2)], dim=1).transpose(1, 2)
    mixed = (torch.softmax(query @ key.transpose(2, 3) + bias_b1ts, dim=-1) @ value).transpose(1, 2)
    return self.out_proj(mixed.reshape(mixed.shape[0], mixed.shape[1], self.n_heads * self.head_dim)), key, value


FAULTS: dict[str, tuple[type, str, Any]] = {
    "forgets the past": (GPTDecoder, "attention_bias", forgets_the_past),
    "mask off by one": (GPTDecoder, "attention_bias", off_by_one),
    "ignores padding": (GPTDecoder, "attention_bias", ignores_padding),
    "ignores positions": (GPTDecoder, "embed", ignores_positions),
    "past at the wrong end": (MultiHeadAttention, "forward", joins_the_wrong_end),
    "past on the wrong axis": (MultiHeadAttention, "forward", joins_the_wrong_axis),
}


@pytest.fixture
def fresh_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch compiles a class once and would not see the fault in it."""
    monkeypatch.setattr(torch.jit._recursive, "concrete_type_store", torch.jit._recursive.ConcreteTypeStore())


@pytest.mark.usefixtures("fresh_types")
@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_a_fault_of_the_cache_publishes_nothing(
    fault: str | None, cli: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, config_file = save_byte_gpt(tmp_path / "in")
    if fault:
        for name in ("attention_bias", "embed"):  # the reference keeps what is right
            monkeypatch.setattr(GPTModel, name, getattr(GPTDecoder, name), raising=False)
        monkeypatch.setattr(*FAULTS[fault])
    run = cli("onnx", saved, "--config", config_file, "--output", tmp_path / "out", "--profile", "portable")
    if fault is None:
        assert run.code == 0, run.err
        return
    run.refused(3, "the export is not the model", "nothing was published")
    assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
