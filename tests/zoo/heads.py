"""Heads of keys and values that are fewer than those of queries, and heads that are handled in their own ways."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.animal import CONTEXT, animal
from tests.zoo.trunk import HEADS, WIDTH, Decoder

KIND = "grouped, shared and single heads"
HEAD = WIDTH // HEADS


def turned(x: Tensor) -> Tensor:
    """(..., T, HEAD) rotated by halves."""
    width = x.size(-1)
    rates = 1e4 ** (-torch.arange(0, width, 2, device=x.device).to(x.dtype) / width)
    angles = torch.arange(x.size(-2), device=x.device).to(x.dtype)[:, None] * rates
    one, two = x.chunk(2, -1)
    return torch.cat((one * angles.cos() - two * angles.sin(), two * angles.cos() + one * angles.sin()), -1)


def causal(length: int) -> Tensor:
    return torch.triu(torch.ones(length, length, dtype=torch.bool), 1)


class Grouped(nn.Module):
    """Keys and values of fewer heads; `repeat` by its subclasses says how they become as many."""

    def __init__(self, heads: int = HEADS, kv_heads: int = 2) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, HEAD
        self.q = nn.Linear(WIDTH, heads * HEAD)
        self.kv = nn.Linear(WIDTH, 2 * kv_heads * HEAD)
        self.o = nn.Linear(heads * HEAD, WIDTH)

    def repeat(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(self.heads // self.kv_heads, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q = turned(self.q(x).view(b, t, self.heads, self.head_dim).transpose(1, 2))
        k, v = self.kv(x).chunk(2, dim=-1)
        k = turned(k.view(b, t, self.kv_heads, self.head_dim).transpose(1, 2))
        v = v.view(b, t, self.kv_heads, self.head_dim).transpose(1, 2)
        k, v = self.repeat(k), self.repeat(v)
        scores = (q @ k.transpose(-2, -1)) * self.head_dim**-0.5
        scores = scores.masked_fill(causal(t), float("-inf"))
        return self.o((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Expanded(Grouped):
    def repeat(self, x: Tensor) -> Tensor:
        b, kv, t, d = x.shape
        times = self.heads // kv
        return x[:, :, None].expand(b, kv, times, t, d).reshape(b, kv * times, t, d)


class Tiled(Grouped):
    """The heads of queries take turns over those of keys, which is another model than the usual one."""

    def repeat(self, x: Tensor) -> Tensor:
        return x.repeat(1, self.heads // self.kv_heads, 1, 1)


class FiveAxes(Grouped):
    """Queries get an axis for the group instead, and keys are broadcast over it."""

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q = turned(self.q(x).view(b, t, self.kv_heads, self.heads // self.kv_heads, HEAD).permute(0, 2, 3, 1, 4))
        k, v = self.kv(x).view(b, t, 2, self.kv_heads, HEAD).permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ turned(k).unsqueeze(2).transpose(-2, -1) / math.sqrt(HEAD)
        scores = scores + torch.full((t, t), -torch.inf).triu(1)
        y = scores.softmax(-1) @ v.unsqueeze(2)
        return self.o(y.permute(0, 3, 1, 2, 4).reshape(b, t, -1))


class MultiQuery(nn.Module):
    """One head of keys and values, split out of one product with the queries, broadcast over their heads."""

    def __init__(self) -> None:
        super().__init__()
        self.c_attn = nn.Linear(WIDTH, WIDTH + 2 * HEAD)
        self.c_proj = nn.Linear(WIDTH, WIDTH)
        self.register_buffer("mask", torch.tril(torch.ones(CONTEXT, CONTEXT, dtype=torch.bool)))

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = self.c_attn(x).split((c, HEAD, HEAD), dim=2)
        q = q.reshape(b, t * HEADS, HEAD)
        scores = torch.bmm(q, k.transpose(1, 2)).view(b, t, HEADS, t) / HEAD**0.5
        scores = torch.where(self.mask[:t, :t].view(1, t, 1, t), scores, torch.finfo(scores.dtype).min)
        y = torch.bmm(scores.softmax(-1).view(b, t * HEADS, t), v)
        return self.c_proj(y.view(b, t, c))


class OneHead(nn.Module):
    """One head, with its own three projections, as tutorials have it."""

    def __init__(self) -> None:
        super().__init__()
        self.key = nn.Linear(WIDTH, HEAD, bias=False)
        self.query = nn.Linear(WIDTH, HEAD, bias=False)
        self.value = nn.Linear(WIDTH, HEAD, bias=False)
        self.register_buffer("tril", torch.tril(torch.ones(CONTEXT, CONTEXT)))

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        k = self.key(x)
        wei = self.query(x) @ k.transpose(-2, -1) * k.shape[-1] ** -0.5
        wei = F.softmax(wei.masked_fill(self.tril[:T, :T] == 0, float("-inf")), dim=-1)
        return wei @ self.value(x)


class HeadList(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList([OneHead() for _ in range(HEADS)])
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(torch.cat([head(x) for head in self.heads], dim=-1))


class HeadLoop(nn.Module):
    """One projection for all; each head then sliced out and attended in a loop, and their results summed."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.outs = nn.ModuleList([nn.Linear(HEAD, WIDTH, bias=False) for _ in range(HEADS)])

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        banned = causal(x.size(1))
        y = torch.zeros_like(x)
        for i, out in enumerate(self.outs):
            at = slice(i * HEAD, (i + 1) * HEAD)
            scores = turned(q[..., at]) @ turned(k[..., at]).transpose(1, 2) / math.sqrt(HEAD)
            y = y + out(scores.masked_fill(banned, -1e9).softmax(dim=2) @ v[..., at])
        return y


class Folded(nn.Module):
    """Heads folded into the batch, products by `bmm` and `baddbmm`."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def fold(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        return x.view(b, t, HEADS, HEAD).permute(0, 2, 1, 3).reshape(b * HEADS, t, HEAD)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = turned(self.fold(self.q(x))), turned(self.fold(self.k(x))), self.fold(self.v(x))
        mask = torch.full((t, t), float("-inf")).triu(1).unsqueeze(0)
        weights = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=HEAD**-0.5).softmax(-1)
        y = torch.bmm(weights, v).view(b, HEADS, t, HEAD)
        return self.o(y.transpose(1, 2).reshape(b, t, c))


@animal(KIND)
def gqa_repeat_interleave() -> nn.Module:
    return Decoder(lambda _: Grouped())


@animal(KIND)
def gqa_expand() -> nn.Module:
    return Decoder(lambda _: Expanded())


@animal(KIND)
def gqa_tiled() -> nn.Module:
    return Decoder(lambda _: Tiled())


@animal(KIND)
def gqa_five_axes() -> nn.Module:
    return Decoder(lambda _: FiveAxes())


@animal(KIND)
def mqa_split() -> nn.Module:
    """Positions come from the causal mask alone."""
    return Decoder(lambda _: MultiQuery())


@animal(KIND)
def heads_in_a_list() -> nn.Module:
    return Decoder(lambda _: HeadList(), norm=nn.LayerNorm)


@animal(KIND)
def heads_in_a_loop() -> nn.Module:
    return Decoder(lambda _: HeadLoop())


@animal(KIND)
def heads_folded_into_batch() -> nn.Module:
    return Decoder(lambda _: Folded())


@animal(KIND)
def heads_differ_by_layer() -> nn.Module:
    """2, 4 and 6 heads, over 1, 4 and 3 of keys and values."""
    return Decoder(lambda i: Grouped(heads=(2, 4, 6)[i], kv_heads=(1, 4, 3)[i]), layers=3)
