"""What the modules have in common that differ in one part alone: embedding, blocks that norm before, a head."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.animal import VOCAB

WIDTH = 32
HEADS = 4
LAYERS = 2


class RMSNorm(nn.Module):
    """Written out, as most people do: x / sqrt(mean(x^2) + eps), times a weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(dim=-1, keepdim=True) + 1e-5) * self.weight


class SwiGLU(nn.Module):
    def __init__(self, width: int = WIDTH, hidden: int = 64) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """Norm, mix, add; norm, feed, add."""

    def __init__(self, mixer: nn.Module, feed: nn.Module, norm: Callable[[int], nn.Module], width: int) -> None:
        super().__init__()
        self.norm1, self.mixer = norm(width), mixer
        self.norm2, self.feed = norm(width), feed

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(self.norm1(x))
        return x + self.feed(self.norm2(x))


class Decoder(nn.Module):
    """ids (B, T) -> logits (B, T, vocab); `mixer` and `feed` make the parts of the layer whose index they are given."""

    def __init__(
        self,
        mixer: Callable[[int], nn.Module],
        feed: Callable[[int], nn.Module] | None = None,
        *,
        norm: Callable[[int], nn.Module] = RMSNorm,
        width: int = WIDTH,
        layers: int = LAYERS,
        vocab: int = VOCAB,
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.blocks = nn.ModuleList(
            [Block(mixer(i), feed(i) if feed else SwiGLU(width), norm, width) for i in range(layers)]
        )
        self.norm = norm(width)
        self.head = nn.Linear(width, vocab, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))
