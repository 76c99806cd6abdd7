"""Positions that are not rotary: none at all, learned, computed, or a bias on the scores."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.animal import CONTEXT, VOCAB, animal
from tests.zoo.trunk import HEADS, LAYERS, WIDTH, Block, Decoder, SwiGLU

KIND = "learned, sinusoidal, biased or no positions"
HEAD = WIDTH // HEADS


class Attention(nn.Module):
    """Attention with a bias on the scores, (heads, T, T), that its subclasses compute; without one, none."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.o = nn.Linear(WIDTH, WIDTH, bias=False)
        self.heads, self.head_dim, self.longest = HEADS, HEAD, CONTEXT

    def bias(self, scores: Tensor) -> Tensor:
        return torch.zeros_like(scores[0])

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ k.transpose(-2, -1) / math.sqrt(self.head_dim)
        scores = scores + self.bias(scores)
        future = torch.ones(t, t, device=x.device, dtype=torch.bool).triu(1)
        y = F.softmax(scores.masked_fill(future, float("-inf")), dim=-1) @ v
        return self.o(y.transpose(1, 2).reshape(b, t, c))


class Slopes(Attention):
    """ALiBi from a buffer of slopes: -slope x distance."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("slopes", torch.tensor([2.0 ** (-8 * (h + 1) / HEADS) for h in range(HEADS)]))

    def bias(self, scores: Tensor) -> Tensor:
        at = torch.arange(scores.size(-1), device=scores.device)
        return self.slopes[:, None, None] * (at[None, :] - at[:, None]).to(scores.dtype)


class KeySlopes(Attention):
    """ALiBi as MPT and BLOOM have it: the key's position alone, which the Softmax cannot tell from the distance."""

    def __init__(self) -> None:
        super().__init__()
        slopes = torch.pow(2.0, -2.0 * torch.arange(1, HEADS + 1))
        self.register_buffer("alibi", slopes[:, None, None] * torch.arange(1 - CONTEXT, 1)[None, None, :])

    def bias(self, scores: Tensor) -> Tensor:
        assert scores.size(-1) <= self.longest, "the text is longer than the table"
        return self.alibi[:, :, self.longest - scores.size(-1) :]


class SlicedSlopes(Attention):
    """ALiBi cut out of a whole table of context x context."""

    def __init__(self) -> None:
        super().__init__()
        distance = torch.arange(CONTEXT)[None, :] - torch.arange(CONTEXT)[:, None]
        slopes = torch.tensor([0.5, 0.25, 0.1, 0.03])
        self.register_buffer("table", slopes[:, None, None] * distance.clamp(max=0))

    def bias(self, scores: Tensor) -> Tensor:
        return self.table[:, : scores.size(-2), : scores.size(-1)]


class Buckets(Attention):
    """T5's: distances in buckets, exact for the near ones and by logarithm for the far, a learned number for each."""

    def __init__(self, buckets: int = 16, furthest: int = 48) -> None:
        super().__init__()
        self.buckets, self.furthest = buckets, furthest
        self.relative_attention_bias = nn.Embedding(buckets, HEADS)

    def bias(self, scores: Tensor) -> Tensor:
        at = torch.arange(scores.size(-1), device=scores.device)
        distance = (at[:, None] - at[None, :]).clamp(min=0)
        exact = self.buckets // 2
        far = torch.log(distance.float().clamp(min=1) / exact) / math.log(self.furthest / exact)
        far = (exact + far * (self.buckets - exact)).long().clamp(max=self.buckets - 1)
        return self.relative_attention_bias(torch.where(distance < exact, distance, far)).permute(2, 0, 1)


class Distances(Attention):
    """One learned number a head and distance."""

    def __init__(self) -> None:
        super().__init__()
        self.by_distance = nn.Parameter(torch.zeros(HEADS, CONTEXT))

    def bias(self, scores: Tensor) -> Tensor:
        at = torch.arange(scores.size(-1), device=scores.device)
        return self.by_distance[:, (at[:, None] - at[None, :]).clamp(min=0)]


class Placed(nn.Module):
    """A decoder that adds something to its embeddings; its subclasses say what, (T, width)."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCAB, WIDTH)
        self.layers = nn.ModuleList([Block(Attention(), SwiGLU(), nn.LayerNorm, WIDTH) for _ in range(LAYERS)])
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCAB)
        self.width = WIDTH

    def places(self, ids: Tensor) -> Tensor:
        return self.tokens(ids)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.places(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


class Sinusoidal(Placed):
    """The sines and cosines of "Attention is all you need", computed for the length at hand; tokens scaled up."""

    def places(self, ids: Tensor) -> Tensor:
        at = torch.arange(ids.size(1), device=ids.device).float().unsqueeze(1)
        rates = torch.exp(torch.arange(0, self.width, 2).float() * (-math.log(10_000.0) / self.width))
        return torch.stack((torch.sin(at * rates), torch.cos(at * rates)), dim=-1).flatten(1)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) * math.sqrt(self.width) + self.places(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


class SinusoidalBuffer(Placed):
    """The same as a buffer (1, context, width) filled by steps, cut to length."""

    def __init__(self) -> None:
        super().__init__()
        pe = torch.zeros(CONTEXT, WIDTH)
        at = torch.arange(0, CONTEXT, dtype=torch.float).unsqueeze(1)
        rates = torch.exp(torch.arange(0, WIDTH, 2).float() * (-math.log(10_000.0) / WIDTH))
        pe[:, 0::2], pe[:, 1::2] = torch.sin(at * rates), torch.cos(at * rates)
        self.register_buffer("pe", pe.unsqueeze(0))

    def places(self, ids: Tensor) -> Tensor:
        return self.pe[:, : ids.size(1)].requires_grad_(False)


class LearnedParameter(Placed):
    def __init__(self) -> None:
        super().__init__()
        self.pos = nn.Parameter(torch.zeros(CONTEXT, WIDTH))

    def places(self, ids: Tensor) -> Tensor:
        return self.pos[: ids.shape[-1]]


class LearnedOffset(Placed):
    """As OPT: a learned embedding whose first two rows nobody reads, positions counted by a cumulative sum of ones."""

    def __init__(self) -> None:
        super().__init__()
        self.pos = nn.Embedding(CONTEXT + 2, WIDTH)

    def places(self, ids: Tensor) -> Tensor:
        return self.pos(torch.ones_like(ids).cumsum(dim=1) + 1)


class LearnedEverywhere(Placed):
    """The position ids are a buffer, and the learned rows are added in front of every layer."""

    def __init__(self) -> None:
        super().__init__()
        self.pos = nn.Embedding(CONTEXT, WIDTH)
        self.register_buffer("position_ids", torch.arange(CONTEXT).expand((1, -1)), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        places = self.pos(self.position_ids[:, : ids.size(1)])
        x = self.tokens(ids)
        for layer in self.layers:
            x = layer(x + places)
        return self.head(self.norm(x))


@animal(KIND)
def nope() -> nn.Module:
    return Decoder(lambda _: Attention())


@animal(KIND)
def alibi_slopes() -> nn.Module:
    return Decoder(lambda _: Slopes())


@animal(KIND)
def alibi_by_key() -> nn.Module:
    return Decoder(lambda _: KeySlopes())


@animal(KIND)
def alibi_table() -> nn.Module:
    return Decoder(lambda _: SlicedSlopes())


@animal(KIND)
def t5_buckets() -> nn.Module:
    return Decoder(lambda _: Buckets())


@animal(KIND)
def learned_distances() -> nn.Module:
    return Decoder(lambda _: Distances())


@animal(KIND)
def sinusoidal_computed() -> nn.Module:
    return Sinusoidal()


@animal(KIND)
def sinusoidal_buffer() -> nn.Module:
    return SinusoidalBuffer()


@animal(KIND)
def learned_parameter() -> nn.Module:
    return LearnedParameter()


@animal(KIND)
def learned_with_offset() -> nn.Module:
    return LearnedOffset()


@animal(KIND)
def learned_in_every_layer() -> nn.Module:
    return LearnedEverywhere()
