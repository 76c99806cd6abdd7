"""The skeleton of a GPT: everything but attention and normalisation, to check shapes end to end.

Matches the placeholder model of "LLMs from scratch", chapter 4: the same submodules created in the same
order, so that a seed gives the same weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gpt_export_models.config import GPTConfig, as_config


class DummyTransformerBlock(nn.Module):
    """Stands where a transformer block will be; returns its input."""

    def __init__(self, cfg: GPTConfig | Mapping[str, Any]) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x


class DummyLayerNorm(nn.Module):
    """Stands where a layer norm will be; returns its input."""

    def __init__(self, normalized_shape: int, eps: float = 1e-5) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x


class DummyGPTModel(nn.Module):
    """Token plus positional embedding, dropout, identity blocks, identity norm and a linear head without bias.

    Args:
        cfg: a `GPTConfig` or a dict like `GPT_CONFIG_124M`.
    """

    def __init__(self, cfg: GPTConfig | Mapping[str, Any]) -> None:
        super().__init__()
        cfg = as_config(cfg)
        self.tok_emb = nn.Embedding(cfg.vocab_size, cfg.emb_dim)
        self.pos_emb = nn.Embedding(cfg.context_length, cfg.emb_dim)
        self.drop_emb = nn.Dropout(cfg.drop_rate)
        self.trf_blocks = nn.Sequential(*[DummyTransformerBlock(cfg) for _ in range(cfg.n_layers)])
        self.final_norm = DummyLayerNorm(cfg.emb_dim)
        self.out_head = nn.Linear(cfg.emb_dim, cfg.vocab_size, bias=False)

    def forward(self, in_idx: Tensor) -> Tensor:
        """Logits, float32 (batch, sequence, vocabulary), of token ids, int64 (batch, sequence)."""
        positions = torch.arange(in_idx.shape[1], device=in_idx.device)
        x = self.tok_emb(in_idx) + self.pos_emb(positions)
        x = self.drop_emb(x)
        x = self.trf_blocks(x)
        x = self.final_norm(x)
        logits: Tensor = self.out_head(x)
        return logits
