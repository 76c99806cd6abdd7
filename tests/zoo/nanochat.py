"""Small GPTs in the manner of nanochat: norms without parameters, rotary, squared ReLU, a soft cap, and no biases."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.animal import CONTEXT, VOCAB, animal

KIND = "nanochat-like"
WIDTH, HEAD = 48, 12


def norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.size(-1),))


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(B, T, heads, width) rotated by halves, with the sign of the sine that its author chose."""
    half = x.shape[3] // 2
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos + second * sin, second * cos - first * sin], 3).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, heads: int, kv_heads: int, layer: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.layer = heads, kv_heads, layer
        self.c_q = nn.Linear(WIDTH, heads * HEAD, bias=False)
        self.c_k = nn.Linear(WIDTH, kv_heads * HEAD, bias=False)
        self.c_v = nn.Linear(WIDTH, kv_heads * HEAD, bias=False)
        self.c_proj = nn.Linear(heads * HEAD, WIDTH, bias=False)

    def forward(self, x, cos_sin, kv_cache=None):
        B, T, C = x.size()
        q = self.c_q(x).view(B, T, self.heads, HEAD)
        k = self.c_k(x).view(B, T, self.kv_heads, HEAD)
        v = self.c_v(x).view(B, T, self.kv_heads, HEAD)
        cos, sin = cos_sin
        q, k = norm(turn(q, cos, sin)), norm(turn(k, cos, sin))
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if kv_cache is not None:
            k, v = kv_cache.insert_kv(self.layer, k, v)
        q_length, k_length = q.size(2), k.size(2)
        grouped = self.heads != self.kv_heads
        if kv_cache is None or q_length == k_length:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
        elif q_length == 1:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=False, enable_gqa=grouped)
        else:
            seen = torch.ones((q_length, k_length), dtype=torch.bool, device=q.device).tril(k_length - q_length)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=grouped)
        return self.c_proj(y.transpose(1, 2).contiguous().view(B, T, -1))


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c_fc = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.c_proj = nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x):
        return self.c_proj(F.relu(self.c_fc(x)).square())


class Block(nn.Module):
    def __init__(self, heads: int, kv_heads: int, layer: int) -> None:
        super().__init__()
        self.attn, self.mlp = Attention(heads, kv_heads, layer), MLP()

    def forward(self, x, cos_sin, kv_cache=None):
        x = x + self.attn(norm(x), cos_sin, kv_cache)
        return x + self.mlp(norm(x))


class Chat(nn.Module):
    """Tables are ten times as long as the context; the loss comes alone when there are targets."""

    def __init__(self, kv_heads: int = 4, cap: float = 15.0, learned: bool = False) -> None:
        super().__init__()
        self.transformer = nn.ModuleDict(
            {"wte": nn.Embedding(VOCAB, WIDTH), "h": nn.ModuleList([Block(4, kv_heads, i) for i in range(3)])}
        )
        self.lm_head = nn.Linear(WIDTH, VOCAB, bias=False)
        self.cap = cap
        self.resid_lambdas = nn.Parameter(torch.ones(3)) if learned else None
        self.x0_lambdas = nn.Parameter(torch.zeros(3)) if learned else None
        cos, sin = self.tables(10 * CONTEXT)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def tables(self, length: int, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
        frequencies = 1.0 / base ** (torch.arange(0, HEAD, 2, dtype=torch.float32) / HEAD)
        angles = torch.outer(torch.arange(length, dtype=torch.float32), frequencies)
        return angles.cos()[None, :, None, :], angles.sin()[None, :, None, :]

    def forward(self, idx, targets=None, kv_cache=None, loss_reduction="mean"):
        T = idx.size(1)
        assert self.cos.size(1) >= T, f"the rotary tables are shorter than {T}"
        assert idx.device == self.cos.device, "the rotary tables are on another device"
        start = 0 if kv_cache is None else kv_cache.get_pos()
        cos_sin = self.cos[:, start : start + T], self.sin[:, start : start + T]
        x = first = norm(self.transformer.wte(idx))
        for i, block in enumerate(self.transformer.h):
            if self.resid_lambdas is not None:
                x = self.resid_lambdas[i] * x + self.x0_lambdas[i] * first
            x = block(x, cos_sin, kv_cache)
        logits = self.lm_head(norm(x)).float()
        logits = self.cap * torch.tanh(logits / self.cap)
        if targets is None:
            return logits
        return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1), reduction=loss_reduction)


@animal(KIND)
def nanochat() -> nn.Module:
    return Chat()


@animal(KIND)
def nanochat_mqa() -> nn.Module:
    """One head of keys and values for all."""
    return Chat(kv_heads=1)


@animal(KIND)
def nanochat_grouped_lambdas() -> nn.Module:
    """Two heads of keys and values, and each layer fed a learned mix of the stream and of the embedding."""
    return Chat(kv_heads=2, cap=5.0, learned=True)
