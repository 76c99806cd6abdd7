"""Decoders that ask how long the text is: a cache of keys made at another length would be another model."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.animal import animal
from tests.zoo.rotations import HEAD, Attention
from tests.zoo.trunk import HEADS, WIDTH, Decoder

KIND = "tables and scales of the text's length"
TRAINED = 24
"""The length beyond which the tables change."""


class Dynamic(Attention):
    """Dynamic NTK: beyond the trained length, the base grows with the whole text's."""

    def __init__(self) -> None:
        super().__init__()
        self.trained = TRAINED

    def turn(self, x: Tensor) -> Tensor:
        length, width = x.size(2), x.size(3)
        base = 10_000.0
        if length > self.trained:
            base = base * (2.0 * length / self.trained - 1.0) ** (width / (width - 2))
        angles = torch.outer(torch.arange(length).float(), base ** (-torch.arange(0, width, 2).float() / width))
        one, two = x.chunk(2, dim=-1)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        return torch.cat((one * cos - two * sin, two * cos + one * sin), dim=-1)


class DynamicByTensor(Attention):
    """The same without a branch: the length is a tensor and its excess is clamped."""

    def turn(self, x: Tensor) -> Tensor:
        at = torch.arange(x.size(2), device=x.device).float()
        stretch = torch.clamp(2.0 * (at.max() + 1) / TRAINED - 1.0, min=1.0)
        base = 10_000.0 * stretch ** (HEAD / (HEAD - 2))
        angles = at[:, None] * torch.exp(-torch.log(base) * torch.arange(0, HEAD, 2).float() / HEAD)
        one, two = x.chunk(2, dim=-1)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        return torch.cat((one * cos - two * sin, two * cos + one * sin), dim=-1)


class Switch(Attention):
    """Long rope: one set of factors up to the trained length, another for the whole text beyond it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("short", torch.ones(HEAD // 2))
        self.register_buffer("long", torch.linspace(1.0, 4.0, HEAD // 2))

    def turn(self, x: Tensor) -> Tensor:
        at = torch.arange(x.size(2), device=x.device)
        factors = torch.where(at.max() + 1 > TRAINED, self.long, self.short)
        angles = at[:, None] / (factors * 1e4 ** (torch.arange(0, HEAD, 2).float() / HEAD))
        one, two = x.chunk(2, dim=-1)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        return torch.cat((one * cos - two * sin, two * cos + one * sin), dim=-1)


class LogLength(nn.Module):
    """Scores scaled by the logarithm of the whole text's length; or, by row, of how many tokens each row sees."""

    def __init__(self, by_row: bool) -> None:
        super().__init__()
        self.qkv, self.o = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.by_row = by_row
        self.heads, self.head_dim = HEADS, HEAD

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = (part.transpose(1, 2) for part in self.qkv(x).view(b, t, 3, self.heads, self.head_dim).unbind(2))
        if self.by_row:
            q = q * torch.log(torch.arange(2, t + 2, device=x.device, dtype=x.dtype))[:, None]
        else:
            q = q * math.log(t + 1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(y.transpose(1, 2).reshape(b, t, c))


class MeanScores(nn.Module):
    """What each row sees is divided by the length of the text."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.o = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        t = x.size(1)
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        scores = F.relu(q @ k.transpose(1, 2)).tril()
        return self.o(scores @ v / t)


@animal(KIND, by_prefix=False, cached_to=TRAINED)
def dynamic_ntk() -> nn.Module:
    return Decoder(lambda _: Dynamic())


@animal(KIND, by_prefix=False, cached_to=TRAINED)
def dynamic_ntk_by_tensor() -> nn.Module:
    return Decoder(lambda _: DynamicByTensor())


@animal(KIND, by_prefix=False, cached_to=TRAINED)
def long_rope_switch() -> nn.Module:
    return Decoder(lambda _: Switch())


@animal(KIND, by_prefix=False, cached=False, because="length")
def scale_by_log_length() -> nn.Module:
    return Decoder(lambda _: LogLength(by_row=False))


@animal(KIND)
def scale_by_log_position() -> nn.Module:
    """Each row's own position: that is position-only, and caches."""
    return Decoder(lambda _: LogLength(by_row=True))


@animal(KIND, by_prefix=False, cached=False, because="trilu")
def divided_by_length() -> nn.Module:
    return Decoder(lambda _: MeanScores())
