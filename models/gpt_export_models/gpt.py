"""The real decoder in two forms: eager `forward(ids)`, and cached steps that take the past and return the present.

Shapes: B batch, T new tokens, P past tokens, S = P + T, E embedding, H heads, D head width, V vocabulary.

Names and creation order are those of `GPTModel` in "LLMs from scratch", chapter 4, so that its seeds and its state
dicts give the same model. Architecture: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019).
Everything here scripts; nothing here knows that it will be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gpt_export_models.config import GPTConfig, as_config

MASK_FILL = -3e4
"""Added to the scores of hidden keys: exp of it is 0 beside any real score, and it is finite in float16 too, so that
a row that may look nowhere (padding) gives finite numbers in every precision."""


class LayerNorm(nn.Module):
    """Normalisation over the last axis (Ba et al., arXiv:1607.06450), with the book's `scale` and `shift`."""

    def __init__(self, emb_dim: int, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__()
        self.emb_dim = emb_dim
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(emb_dim))
        self.shift = nn.Parameter(torch.zeros(emb_dim)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, (self.emb_dim,), self.scale, self.shift, self.eps)


class MultiHeadAttention(nn.Module):
    """Causal multi-head attention (Vaswani et al., arXiv:1706.03762) over a past that may be empty."""

    def __init__(self, cfg: GPTConfig) -> None:
        super().__init__()
        self.n_heads = cfg.n_heads
        self.head_dim = cfg.head_dim
        self.query_scale = 1.0 / math.sqrt(cfg.head_dim)
        self.W_query = nn.Linear(cfg.emb_dim, cfg.emb_dim, bias=cfg.qkv_bias)
        self.W_key = nn.Linear(cfg.emb_dim, cfg.emb_dim, bias=cfg.qkv_bias)
        self.W_value = nn.Linear(cfg.emb_dim, cfg.emb_dim, bias=cfg.qkv_bias)
        self.out_proj = nn.Linear(cfg.emb_dim, cfg.emb_dim, bias=cfg.linear_bias)
        self.dropout = nn.Dropout(cfg.drop_rate)

    def split_heads(self, x_bte: Tensor) -> Tensor:
        return x_bte.view(x_bte.shape[0], x_bte.shape[1], self.n_heads, self.head_dim).transpose(1, 2)

    def forward(
        self, x_bte: Tensor, bias_b1ts: Tensor, past_key_bhpd: Tensor, past_value_bhpd: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Attention's output (B, T, E), and the keys and values of past and new tokens (B, H, S, D)."""
        query_bhtd = self.split_heads(self.W_query(x_bte)) * self.query_scale
        key_bhsd = torch.cat([past_key_bhpd, self.split_heads(self.W_key(x_bte))], dim=2)
        value_bhsd = torch.cat([past_value_bhpd, self.split_heads(self.W_value(x_bte))], dim=2)
        weights_bhts = self.dropout(torch.softmax(query_bhtd @ key_bhsd.transpose(2, 3) + bias_b1ts, dim=-1))
        mixed_bthd = (weights_bhts @ value_bhsd).transpose(1, 2)
        merged_bte = mixed_bthd.reshape(mixed_bthd.shape[0], mixed_bthd.shape[1], self.n_heads * self.head_dim)
        out_bte = self.out_proj(merged_bte)
        return out_bte, key_bhsd, value_bhsd


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them (Hendrycks & Gimpel, arXiv:1606.08415)."""

    def __init__(self, cfg: GPTConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(cfg.emb_dim, cfg.feed_forward_dim, bias=cfg.linear_bias),
            nn.GELU(approximate="tanh" if cfg.activation == "gelu_tanh" else "none"),
            nn.Linear(cfg.feed_forward_dim, cfg.emb_dim, bias=cfg.linear_bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


class TransformerBlock(nn.Module):
    """Attention and feed-forward, each behind a norm and around a residual."""

    def __init__(self, cfg: GPTConfig) -> None:
        super().__init__()
        self.att = MultiHeadAttention(cfg)
        self.ff = FeedForward(cfg)
        self.norm1 = LayerNorm(cfg.emb_dim, cfg.norm_eps, cfg.norm_bias)
        self.norm2 = LayerNorm(cfg.emb_dim, cfg.norm_eps, cfg.norm_bias)
        self.drop_resid = nn.Dropout(cfg.drop_rate)

    def forward(
        self, x_bte: Tensor, bias_b1ts: Tensor, past_key_bhpd: Tensor, past_value_bhpd: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The block's output (B, T, E), and the keys and values of past and new tokens (B, H, S, D)."""
        attended, key_bhsd, value_bhsd = self.att(self.norm1(x_bte), bias_b1ts, past_key_bhpd, past_value_bhpd)
        x_bte = x_bte + self.drop_resid(attended)
        x_bte = x_bte + self.drop_resid(self.ff(self.norm2(x_bte)))
        return x_bte, key_bhsd, value_bhsd


class GPTDecoder(nn.Module):
    """The parts of a GPT-2 decoder and the steps between them; how they are put together is its user's choice.

    Args:
        cfg: a `GPTConfig` or a dict like `GPT_CONFIG_124M`.
    """

    def __init__(self, cfg: GPTConfig | Mapping[str, Any]) -> None:
        super().__init__()
        cfg = as_config(cfg)
        self.n_heads = cfg.n_heads
        self.head_dim = cfg.head_dim
        self.mask_fill = MASK_FILL
        self.tok_emb = nn.Embedding(cfg.vocab_size, cfg.emb_dim)
        self.pos_emb = nn.Embedding(cfg.context_length, cfg.emb_dim)
        self.drop_emb = nn.Dropout(cfg.drop_rate)
        self.trf_blocks = nn.ModuleList([TransformerBlock(cfg) for _ in range(cfg.n_layers)])
        self.final_norm = LayerNorm(cfg.emb_dim, cfg.norm_eps, cfg.norm_bias)
        self.out_head = nn.Linear(cfg.emb_dim, cfg.vocab_size, bias=False)
        if cfg.tied_head:
            self.out_head.weight = self.tok_emb.weight

    @torch.jit.export
    def embed(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        """Token plus positional embeddings, (B, T, E)."""
        x: Tensor = self.drop_emb(self.tok_emb(input_ids) + self.pos_emb(position_ids))
        return x

    @torch.jit.export
    def attention_bias(self, attention_mask: Tensor, n_new: int, like: Tensor) -> Tensor:
        """What is added to the attention scores, (B, 1, T, S): 0 where a query may look, else a huge negative number.

        A query looks at keys that are not padding (`attention_mask`, (B, S), is 1) and not after itself.
        """
        n_all = attention_mask.shape[1]
        key_at = torch.arange(n_all, device=attention_mask.device)
        query_at = torch.arange(n_new, device=attention_mask.device) + (n_all - n_new)
        causal_ts = key_at.unsqueeze(0) <= query_at.unsqueeze(1)
        allowed_b1ts = causal_ts & (attention_mask > 0).unsqueeze(1).unsqueeze(1)
        return torch.zeros_like(allowed_b1ts, dtype=like.dtype).masked_fill(~allowed_b1ts, self.mask_fill)

    @torch.jit.export
    def head(self, x_bte: Tensor) -> Tensor:
        """Logits, (B, T, V), of the last block's output."""
        logits: Tensor = self.out_head(self.final_norm(x_bte))
        return logits


class GPTModel(GPTDecoder):
    """A GPT-2 decoder that maps ids to logits in one pass: the eager reference, and the uncached graph."""

    def forward(self, in_idx: Tensor) -> Tensor:
        """Logits, float32 (B, T, V), of token ids, int64 (B, T), in one pass without a cache."""
        positions = torch.arange(in_idx.shape[1], device=in_idx.device).unsqueeze(0)
        x_bte = self.embed(in_idx, positions)
        bias = self.attention_bias(torch.ones_like(in_idx), in_idx.shape[1], x_bte)
        past = x_bte.new_zeros((in_idx.shape[0], self.n_heads, 0, self.head_dim))
        for block in self.trf_blocks:
            x_bte, _, _ = block(x_bte, bias, past, past)
        return self.head(x_bte)
