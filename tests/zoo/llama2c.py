"""Small Llamas in the manner of llama2.c: the loss is left on the module, inference gives the last position alone."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.animal import CONTEXT, VOCAB, animal

KIND = "llama2.c-like"


class RMSNorm(nn.Module):
    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def _norm(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)

    def forward(self, x):
        return self._norm(x.float()).type_as(x) * self.weight


def rotary_tables(dim: int, end: int, theta: float = 10_000.0) -> tuple[Tensor, Tensor]:
    frequencies = 1.0 / (theta ** (torch.arange(0, dim, 2)[: dim // 2].float() / dim))
    angles = torch.outer(torch.arange(end), frequencies).float()
    return torch.cos(angles), torch.sin(angles)


def reshape_for_broadcast(table: Tensor, x: Tensor) -> Tensor:
    assert table.shape == (x.shape[1], x.shape[-1])
    return table.view([size if axis in (1, x.ndim - 1) else 1 for axis, size in enumerate(x.shape)])


def apply_rotary(xq: Tensor, xk: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs of neighbours turned, the real and the imaginary parts written out."""
    q_r, q_i = xq.float().reshape(xq.shape[:-1] + (-1, 2)).unbind(-1)
    k_r, k_i = xk.float().reshape(xk.shape[:-1] + (-1, 2)).unbind(-1)
    cos, sin = reshape_for_broadcast(cos, q_r), reshape_for_broadcast(sin, q_r)
    q = torch.stack([q_r * cos - q_i * sin, q_r * sin + q_i * cos], dim=-1).flatten(3)
    k = torch.stack([k_r * cos - k_i * sin, k_r * sin + k_i * cos], dim=-1).flatten(3)
    return q.type_as(xq), k.type_as(xk)


def repeat_kv(x: Tensor, times: int) -> Tensor:
    bs, slen, heads, dim = x.shape
    if times == 1:
        return x
    return x[:, :, :, None, :].expand(bs, slen, heads, times, dim).reshape(bs, slen, heads * times, dim)


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int, kv_heads: int, flash: bool) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, dim // heads
        self.wq = nn.Linear(dim, heads * self.head_dim, bias=False)
        self.wk = nn.Linear(dim, kv_heads * self.head_dim, bias=False)
        self.wv = nn.Linear(dim, kv_heads * self.head_dim, bias=False)
        self.wo = nn.Linear(heads * self.head_dim, dim, bias=False)
        self.flash = flash
        if not flash:
            mask = torch.full((1, 1, CONTEXT, CONTEXT), float("-inf"))
            self.register_buffer("mask", torch.triu(mask, diagonal=1))

    def forward(self, x, cos, sin):
        bsz, seqlen, _ = x.shape
        xq = self.wq(x).view(bsz, seqlen, self.heads, self.head_dim)
        xk = self.wk(x).view(bsz, seqlen, self.kv_heads, self.head_dim)
        xv = self.wv(x).view(bsz, seqlen, self.kv_heads, self.head_dim)
        xq, xk = apply_rotary(xq, xk, cos, sin)
        xk, xv = repeat_kv(xk, self.heads // self.kv_heads), repeat_kv(xv, self.heads // self.kv_heads)
        xq, xk, xv = xq.transpose(1, 2), xk.transpose(1, 2), xv.transpose(1, 2)
        if self.flash:
            output = F.scaled_dot_product_attention(xq, xk, xv, attn_mask=None, dropout_p=0.0, is_causal=True)
        else:
            scores = torch.matmul(xq, xk.transpose(2, 3)) / math.sqrt(self.head_dim)
            scores = scores + self.mask[:, :, :seqlen, :seqlen]
            output = torch.matmul(F.softmax(scores.float(), dim=-1).type_as(xq), xv)
        return self.wo(output.transpose(1, 2).contiguous().view(bsz, seqlen, -1))


class Feed(nn.Module):
    def __init__(self, dim: int, multiple_of: int = 16) -> None:
        super().__init__()
        hidden = multiple_of * ((int(2 * 4 * dim / 3) + multiple_of - 1) // multiple_of)
        self.w1 = nn.Linear(dim, hidden, bias=False)
        self.w2 = nn.Linear(hidden, dim, bias=False)
        self.w3 = nn.Linear(dim, hidden, bias=False)

    def forward(self, x):
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Layer(nn.Module):
    def __init__(self, dim: int, heads: int, kv_heads: int, flash: bool) -> None:
        super().__init__()
        self.attention = Attention(dim, heads, kv_heads, flash)
        self.feed_forward = Feed(dim)
        self.attention_norm, self.ffn_norm = RMSNorm(dim, 1e-5), RMSNorm(dim, 1e-5)

    def forward(self, x, cos, sin):
        h = x + self.attention(self.attention_norm(x), cos, sin)
        return h + self.feed_forward(self.ffn_norm(h))


class Transformer(nn.Module):
    last_loss: Tensor | None

    def __init__(self, dim: int = 32, heads: int = 4, kv_heads: int = 2, flash: bool = True) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(VOCAB, dim)
        self.dropout = nn.Dropout(0.0)
        self.layers = nn.ModuleList([Layer(dim, heads, kv_heads, flash) for _ in range(2)])
        self.norm = RMSNorm(dim, 1e-5)
        self.output = nn.Linear(dim, VOCAB, bias=False)
        self.tok_embeddings.weight = self.output.weight
        cos, sin = rotary_tables(dim // heads, CONTEXT)
        self.register_buffer("freqs_cos", cos, persistent=False)
        self.register_buffer("freqs_sin", sin, persistent=False)
        self.last_loss = None

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> Tensor:
        _bsz, seqlen = tokens.shape
        h = self.dropout(self.tok_embeddings(tokens))
        cos, sin = self.freqs_cos[:seqlen], self.freqs_sin[:seqlen]
        for layer in self.layers:
            h = layer(h, cos, sin)
        h = self.norm(h)
        if targets is not None:
            logits = self.output(h)
            self.last_loss = F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1), ignore_index=-1)
        else:
            logits = self.output(h[:, [-1], :])
            self.last_loss = None
        return logits


class Everywhere(Transformer):
    """A fork whose inference gives every position."""

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> Tensor:
        h = self.tok_embeddings(tokens)
        for layer in self.layers:
            h = layer(h, self.freqs_cos[: tokens.shape[1]], self.freqs_sin[: tokens.shape[1]])
        return self.output(self.norm(h))


@animal(KIND, output="last")
def llama2c_flash() -> nn.Module:
    return Transformer()


@animal(KIND, output="last")
def llama2c_manual() -> nn.Module:
    return Transformer(flash=False, kv_heads=4)


@animal(KIND)
def llama2c_all_positions() -> nn.Module:
    return Everywhere(flash=False)
