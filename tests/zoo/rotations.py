"""Rotary positions in every way that people write them, on attention that is otherwise plain."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.animal import CONTEXT, animal
from tests.zoo.trunk import HEADS, WIDTH, Decoder

KIND = "rotary positions"
HEAD = WIDTH // HEADS


class Attention(nn.Module):
    """Projections, `turn` by its subclasses, and the fused product."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.heads, self.head_dim = HEADS, HEAD

    def turn(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q = self.q(x).view(b, t, self.heads, self.head_dim).transpose(1, 2)
        k = self.k(x).view(b, t, self.heads, self.head_dim).transpose(1, 2)
        v = self.v(x).view(b, t, self.heads, self.head_dim).transpose(1, 2)
        y = F.scaled_dot_product_attention(self.turn(q), self.turn(k), v, is_causal=True)
        return self.o(y.transpose(1, 2).reshape(b, t, c))


class Halves(Attention):
    """The two halves of a head turn; the tables are made as long as the text, each time."""

    def __init__(self, base: float = 10_000.0, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor
        self.register_buffer("inv_freq", base ** (-torch.arange(0, HEAD, 2).float() / HEAD), persistent=False)

    def turn(self, x: Tensor) -> Tensor:
        at = torch.arange(x.size(-2), device=x.device, dtype=self.inv_freq.dtype) / self.factor
        angles = torch.outer(at, self.inv_freq)
        angles = torch.cat((angles, angles), dim=-1)
        one, two = x.chunk(2, dim=-1)
        return x * angles.cos() + torch.cat((-two, one), dim=-1) * angles.sin()


class Interleaved(Attention):
    """Neighbours turn: even and odd entries, by slices with a step."""

    def __init__(self) -> None:
        super().__init__()
        angles = torch.outer(torch.arange(CONTEXT).float(), 1e4 ** (-torch.arange(0, HEAD, 2).float() / HEAD))
        self.register_buffer("sin", angles.sin())
        self.register_buffer("cos", angles.cos())

    def turn(self, x: Tensor) -> Tensor:
        cos, sin = self.cos[: x.size(2)], self.sin[: x.size(2)]
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


class Complex(Attention):
    """Neighbours are complex numbers, positions are factors on the unit circle."""

    def __init__(self) -> None:
        super().__init__()
        angles = torch.outer(torch.arange(CONTEXT).float(), 1e4 ** (-torch.arange(0, HEAD, 2).float() / HEAD))
        self.register_buffer("freqs_cis", torch.polar(torch.ones_like(angles), angles), persistent=False)

    def turn(self, x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * self.freqs_cis[: x.size(2)]).flatten(3).type_as(x)


class Partial(Attention):
    """A quarter of each head does not turn and three quarters do, the way that NeoX and Phi cut them."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.width = width
        angles = torch.outer(torch.arange(CONTEXT).float(), 1e4 ** (-torch.arange(0, width, 2).float() / width))
        self.register_buffer("table", torch.stack((angles.cos(), angles.sin())), persistent=False)

    def turn(self, x: Tensor) -> Tensor:
        turning, still = x[..., : self.width], x[..., self.width :]
        cos, sin = self.table[:, : x.size(2)].repeat(1, 1, 2)
        one, two = turning.chunk(2, dim=-1)
        return torch.cat((turning * cos + torch.cat((-two, one), dim=-1) * sin, still), dim=-1)


class Looked(Attention):
    """Tables as embeddings that are looked up by position ids, which are counted from the ids' shape."""

    def __init__(self) -> None:
        super().__init__()
        angles = torch.outer(torch.arange(CONTEXT).float(), 1e4 ** (-torch.arange(0, HEAD, 2).float() / HEAD))
        self.register_buffer("emb", torch.cat((angles.cos(), angles.sin()), dim=-1))

    def turn(self, x: Tensor) -> Tensor:
        position_ids = torch.arange(x.size(2), device=x.device).unsqueeze(0).expand(x.size(0), -1)
        cos, sin = F.embedding(position_ids, self.emb).unsqueeze(1).chunk(2, dim=-1)
        half = self.head_dim // 2
        one, two = x[..., :half], x[..., half:]
        return torch.cat((one * cos - two * sin, one * sin + two * cos), dim=-1)


class Matrix(Attention):
    """A matrix for each position, as a paper has it, multiplied with every head."""

    def __init__(self) -> None:
        super().__init__()
        angles = torch.outer(torch.arange(CONTEXT).float(), 1e4 ** (-torch.arange(0, HEAD, 2).float() / HEAD))
        turns = torch.zeros(CONTEXT, HEAD, HEAD)
        for pair in range(HEAD // 2):
            a, b = 2 * pair, 2 * pair + 1
            turns[:, a, a] = turns[:, b, b] = angles[:, pair].cos()
            turns[:, b, a] = angles[:, pair].sin()
            turns[:, a, b] = -angles[:, pair].sin()
        self.register_buffer("turns", turns)

    def turn(self, x: Tensor) -> Tensor:
        return torch.einsum("bhti,tji->bhtj", x, self.turns[: x.size(2)])


class Rope2(Attention):
    """The first half of the heads turns by one base, the other by another: local and global in one layer."""

    def __init__(self) -> None:
        super().__init__()
        at = torch.arange(CONTEXT).float()[:, None, None]
        bases = torch.tensor([100.0, 100.0, 1e5, 1e5])[:, None]
        angles = at * bases ** (-torch.arange(0, HEAD, 2).float() / HEAD)
        self.register_buffer("angles", angles.transpose(0, 1).contiguous())

    def turn(self, x: Tensor) -> Tensor:
        angles = self.angles[:, : x.size(2)]
        one, two = x.chunk(2, dim=-1)
        return torch.cat((one * angles.cos() - two * angles.sin(), two * angles.cos() + one * angles.sin()), dim=-1)


@animal(KIND)
def rope_halves() -> nn.Module:
    return Decoder(lambda _: Halves())


@animal(KIND)
def rope_linear_scaling() -> nn.Module:
    """Positions divided by four: the old way to longer texts."""
    return Decoder(lambda _: Halves(factor=4.0))


@animal(KIND)
def rope_interleaved() -> nn.Module:
    return Decoder(lambda _: Interleaved())


@animal(KIND)
def rope_complex() -> nn.Module:
    return Decoder(lambda _: Complex())


@animal(KIND)
def rope_partial() -> nn.Module:
    return Decoder(lambda _: Partial())


@animal(KIND)
def rope_looked_up() -> nn.Module:
    return Decoder(lambda _: Looked())


@animal(KIND)
def rope_matrices() -> nn.Module:
    return Decoder(lambda _: Matrix())


@animal(KIND)
def rope_two_bases_in_a_layer() -> nn.Module:
    return Decoder(lambda _: Rope2())


@animal(KIND)
def rope_local_and_global() -> nn.Module:
    """The base differs from layer to layer, as in Gemma 3."""
    return Decoder(lambda i: Halves(base=1e4 if i % 2 else 1e6), layers=3)
