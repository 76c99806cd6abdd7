"""A Llama-shaped decoder with a sliding window: what the faults of a found cache are planted into.

Each of its options is a fault that people make. Beside its rotation it has a table of positions, because a rotation
alone does not tell where a text begins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from gpt_export.sources.source import Source, source_of_module
from torch import Tensor, nn
from torch.nn import functional

VOCAB, CONTEXT, WIDTH, HEADS, KV_HEADS, LAYERS, WINDOW = 97, 40, 64, 4, 2, 4, 22
HEAD = WIDTH // HEADS


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What one attention and one norm compute; the defaults are right."""

    window: int = WINDOW
    base: float = 10_000.0
    turned: int = HEAD
    """How much of each head is rotated."""
    interleaved: bool = False
    tiled: bool = False
    """Whether repeated keys and values stand one set behind another and not side by side."""
    cap: float | None = 20.0
    norm_behind_rotation: bool = False
    epsilon: float = 1e-3
    offset: float = 0.0
    """Added to the scales of norms: Gemma's 1 + w."""
    exchanged: bool = False
    """Whether the gate stands where the other product should."""
    shift: int = 0
    """Of every position."""


class Norm(nn.Module):
    """The root mean square norm."""

    def __init__(self, width: int, shape: Shape) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon, self.offset = shape.epsilon, shape.offset

    def forward(self, x: Tensor) -> Tensor:
        scaled = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.epsilon)
        return scaled * (self.weight + self.offset if self.offset else self.weight)


class Attention(nn.Module):
    """Grouped heads, QK norm, rotation, soft cap, a window."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.q_proj = nn.Linear(WIDTH, WIDTH, bias=False)
        self.k_proj = nn.Linear(WIDTH, KV_HEADS * HEAD, bias=False)
        self.v_proj = nn.Linear(WIDTH, KV_HEADS * HEAD, bias=False)
        self.o_proj = nn.Linear(WIDTH, WIDTH, bias=False)
        self.q_norm, self.k_norm = Norm(HEAD, shape), Norm(HEAD, shape)

    def rotate(self, x: Tensor) -> Tensor:
        turned, shape = self.shape.turned, self.shape
        at = torch.arange(x.shape[2], device=x.device, dtype=torch.float32)
        if shape.shift:
            at = at + shape.shift
        angles = torch.outer(at, shape.base ** (-torch.arange(0, turned, 2, device=x.device).float() / turned))
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        part, rest = x[..., :turned], x[..., turned:]
        if shape.interleaved:
            one, two = part[..., 0::2], part[..., 1::2]
            part = torch.stack((one * cos - two * sin, two * cos + one * sin), -1).flatten(-2)
        else:
            one, two = part[..., : turned // 2], part[..., turned // 2 :]
            part = torch.cat((one * cos - two * sin, two * cos + one * sin), -1)
        return torch.cat((part, rest), -1)

    def prepare(self, x: Tensor, norm: nn.Module) -> Tensor:
        return norm(self.rotate(x)) if self.shape.norm_behind_rotation else self.rotate(norm(x))

    def repeated(self, x: Tensor) -> Tensor:
        times = HEADS // KV_HEADS
        return x.repeat(1, times, 1, 1) if self.shape.tiled else x.repeat_interleave(times, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q = self.q_proj(x).view(b, t, HEADS, HEAD).transpose(1, 2)
        k = self.k_proj(x).view(b, t, KV_HEADS, HEAD).transpose(1, 2)
        v = self.v_proj(x).view(b, t, KV_HEADS, HEAD).transpose(1, 2)
        q, k = self.prepare(q, self.q_norm), self.prepare(k, self.k_norm)
        scores = q @ self.repeated(k).transpose(2, 3) / math.sqrt(HEAD)
        if self.shape.cap is not None:
            scores = self.shape.cap * torch.tanh(scores / self.shape.cap)
        at = torch.arange(t, device=x.device)
        seen = (at[None, :] <= at[:, None]) & (at[None, :] > at[:, None] - self.shape.window)
        weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
        return self.o_proj((weights @ self.repeated(v)).transpose(1, 2).reshape(b, t, WIDTH))


class Mlp(nn.Module):
    """SwiGLU."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(WIDTH, 2 * WIDTH, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(2 * WIDTH, WIDTH, bias=False)
        self.exchanged = shape.exchanged

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_proj(x), self.up_proj(x)
        if self.exchanged:
            gate, up = up, gate
        return self.down_proj(functional.silu(gate) * up)


class Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = Norm(WIDTH, shape), Norm(WIDTH, shape)
        self.self_attn, self.mlp = Attention(shape), Mlp(shape)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    """ids (B, T) -> logits (B, T, VOCAB); `wrong` is the shape of the layers that it names."""

    def __init__(self, wrong: dict[int, Shape] | None = None) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCAB, WIDTH)
        self.embed_positions = nn.Embedding(CONTEXT, WIDTH)
        self.layers = nn.ModuleList([Layer((wrong or {}).get(i, Shape())) for i in range(LAYERS)])
        self.norm = Norm(WIDTH, Shape())
        self.lm_head = nn.Linear(WIDTH, VOCAB, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed_tokens(ids) + self.embed_positions(torch.arange(ids.shape[1], device=ids.device))
        for layer in self.layers:
            x = layer(x)
        return self.lm_head(self.norm(x))


def llama(wrong: dict[int, Shape] | None = None, spread: float = 0.15) -> Llama:
    """The decoder with drawn weights, the same whatever is wrong with it: no two layers are alike."""
    model = Llama(wrong).eval()
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator) * spread
            parameter.copy_(drawn + 1 if "norm" in name else drawn)
    return model


def llama_source() -> Source:
    """The source of the decoder, from which a cache is derived when it is exported."""
    return source_of_module(llama(), name="llama", record={"kind": "test", "name": "llama"}, context_length=CONTEXT)
