"""What people do to scores: windows, sinks, caps, norms of queries and keys, gates, differences."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.animal import CONTEXT, VOCAB, animal
from tests.zoo.trunk import HEADS, WIDTH, Decoder

WINDOWS = "sliding windows and sinks"
SCORES = "soft caps, QK norms, gates"
HEAD = WIDTH // HEADS


def tables(length: int, like: Tensor, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    width = like.size(-1)
    at = torch.arange(length, device=like.device, dtype=torch.float32)
    angles = torch.outer(at, base ** (-torch.arange(0, width, 2, device=like.device).float() / width)).repeat(1, 2)
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    one, two = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-two, one), -1) * sin


class Attention(nn.Module):
    """Two heads of keys and values, rotary, within a window if there is one; `weigh` turns scores into weights."""

    def __init__(self, window: int | None = None) -> None:
        super().__init__()
        self.window = window
        self.heads, self.kv_heads, self.head_dim = HEADS, HEADS // 2, HEAD
        self.q, self.o = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.k, self.v = nn.Linear(WIDTH, WIDTH // 2, bias=False), nn.Linear(WIDTH, WIDTH // 2, bias=False)

    def seen(self, length: int) -> Tensor:
        at = torch.arange(length)
        seen = at[None, :] <= at[:, None]
        if self.window is not None:
            seen = seen & (at[None, :] > at[:, None] - self.window)
        return seen

    def prepare(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = tables(q.size(2), q)
        return rotate(q, cos, sin), rotate(k, cos, sin)

    def weigh(self, scores: Tensor) -> Tensor:
        return scores.softmax(dim=-1)

    def attend(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q = self.q(x).view(b, t, self.heads, self.head_dim).transpose(1, 2)
        k = self.k(x).view(b, t, self.kv_heads, self.head_dim).transpose(1, 2)
        v = self.v(x).view(b, t, self.kv_heads, self.head_dim).transpose(1, 2)
        q, k = self.prepare(q, k)
        k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        scores = torch.matmul(q, k.transpose(2, 3)) / math.sqrt(self.head_dim)
        weights = self.weigh(scores.masked_fill(~self.seen(t).to(x.device), float("-inf")))
        return torch.matmul(weights, v).transpose(1, 2).flatten(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.o(self.attend(x))


class Band(nn.Module):
    """A window made by two triangles of a buffer, given to the fused product."""

    def __init__(self, window: int) -> None:
        super().__init__()
        self.qkv, self.o = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        ones = torch.ones(CONTEXT, CONTEXT, dtype=torch.bool)
        self.register_buffer("band", ones.tril() & ones.triu(1 - window), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = (part.view(b, t, HEADS, HEAD).transpose(1, 2) for part in self.qkv(x).split(c, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.band[:t, :t])
        return self.o(y.transpose(1, 2).contiguous().view(b, t, c))


class Sink(Attention):
    """A learned logit a head that takes part in the softmax and is dropped from it, as in gpt-oss."""

    def __init__(self, window: int | None = None) -> None:
        super().__init__(window)
        self.sinks = nn.Parameter(torch.zeros(HEADS))

    def weigh(self, scores: Tensor) -> Tensor:
        sinks = self.sinks.view(1, self.heads, 1, 1).expand(scores.size(0), -1, scores.size(2), 1)
        return torch.cat((scores, sinks), dim=-1).softmax(dim=-1)[..., :-1]


class OffByOne(Attention):
    """Softmax with one more in the denominator, written out."""

    def weigh(self, scores: Tensor) -> Tensor:
        top = scores.amax(dim=-1, keepdim=True).clamp(min=0)
        exponentials = torch.exp(scores - top)
        return exponentials / (exponentials.sum(dim=-1, keepdim=True) + torch.exp(-top))


class FirstTokens(Attention):
    """A window that always sees the first two tokens as well, as streaming does."""

    def seen(self, length: int) -> Tensor:
        at = torch.arange(length)
        near = (at[:, None] - at[None, :]) < 8
        return (at[:, None] >= at[None, :]) & (near | (at[None, :] < 2))


class Capped(Attention):
    """Scores capped by 50 tanh(s / 50) in front of the mask, as in Gemma 2 (with a cap that bites here)."""

    def __init__(self, cap: float = 2.0) -> None:
        super().__init__()
        self.cap = cap

    def attend(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q = self.q(x).view(b, t, HEADS, HEAD).transpose(1, 2)
        k = self.k(x).view(b, t, HEADS // 2, HEAD).transpose(1, 2).repeat_interleave(2, 1)
        v = self.v(x).view(b, t, HEADS // 2, HEAD).transpose(1, 2).repeat_interleave(2, 1)
        q, k = self.prepare(q, k)
        scores = self.cap * torch.tanh(q @ k.mT * HEAD**-0.5 / self.cap)
        scores = scores + torch.where(self.seen(t), 0.0, torch.finfo(torch.float32).min)
        return (scores.softmax(-1, dtype=torch.float32).to(v.dtype) @ v).transpose(1, 2).reshape(b, t, WIDTH)


class NormBefore(Attention):
    """RMS norms with weights on queries and keys, and then the rotation."""

    def __init__(self) -> None:
        super().__init__()
        self.q_norm, self.k_norm = nn.RMSNorm(HEAD, eps=1e-6), nn.RMSNorm(HEAD, eps=1e-6)

    def prepare(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return super().prepare(self.q_norm(q), self.k_norm(k))


class NormAfter(NormBefore):
    def prepare(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = tables(q.size(2), q)
        return self.q_norm(rotate(q, cos, sin)), self.k_norm(rotate(k, cos, sin))


class Cosine(Attention):
    """Queries and keys of length one, and a learned temperature a head."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.full((HEADS, 1, 1), 3.0))

    def prepare(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        q, k = super().prepare(F.normalize(q, dim=-1), F.normalize(k, dim=-1))
        return q * self.temperature * math.sqrt(self.head_dim), k


class Gated(Attention):
    """What the heads saw, let through by a sigmoid of what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.o(self.attend(x) * torch.sigmoid(self.gate(x)))


class SigmoidWeights(Attention):
    """No softmax: each score by itself through a sigmoid, with a bias that keeps the sum small."""

    def weigh(self, scores: Tensor) -> Tensor:
        return torch.sigmoid(scores - 2.0)


class Differential(nn.Module):
    """Two softmaxes for each head of values, the second subtracted by a learned share, then a norm a head."""

    def __init__(self, layer: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.start = 0.8 - 0.6 * math.exp(-0.3 * layer)
        self.lq1, self.lk1 = nn.Parameter(torch.zeros(HEAD)), nn.Parameter(torch.zeros(HEAD))
        self.lq2, self.lk2 = nn.Parameter(torch.zeros(HEAD)), nn.Parameter(torch.zeros(HEAD))
        self.norm = nn.RMSNorm(2 * HEAD, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        cos, sin = tables(t, x[..., :HEAD])
        q = rotate(self.q(x).view(b, t, HEADS, HEAD).transpose(1, 2), cos, sin)
        k = rotate(self.k(x).view(b, t, HEADS, HEAD).transpose(1, 2), cos, sin)
        v = self.v(x).view(b, t, HEADS // 2, 2 * HEAD).transpose(1, 2)
        scores = q @ k.transpose(-1, -2) * HEAD**-0.5
        scores = scores + torch.triu(torch.full((t, t), float("-inf"), device=x.device), 1)
        weights = F.softmax(scores, dim=-1).view(b, HEADS // 2, 2, t, t)
        share = torch.exp(self.lq1 @ self.lk1) - torch.exp(self.lq2 @ self.lk2) + self.start
        y = (weights[:, :, 0] - share * weights[:, :, 1]) @ v
        return self.o((self.norm(y) * (1 - self.start)).transpose(1, 2).reshape(b, t, c))


class CappedLogits(Decoder):
    """Embeddings scaled by the root of the width, logits capped, as in Gemma."""

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids) * torch.tensor(WIDTH**0.5, dtype=self.embed.weight.dtype)
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x)) / 3.0
        return torch.tanh(logits) * 3.0


class Ways(nn.Module):
    """Two attentions whose results are added with learned shares: near and far."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.far = Attention(window=6), Attention()
        self.shares = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.shares[0] * self.near(x) + self.shares[1] * self.far(x)


@animal(WINDOWS)
def window_everywhere() -> nn.Module:
    return Decoder(lambda _: Attention(window=9))


@animal(WINDOWS)
def window_alternating() -> nn.Module:
    return Decoder(lambda i: Attention(window=12 if i % 2 == 0 else None), layers=3)


@animal(WINDOWS)
def window_band_buffer() -> nn.Module:
    """Positions come from the mask alone."""
    return Decoder(lambda _: Band(window=16))


@animal(WINDOWS)
def window_and_first_tokens() -> nn.Module:
    return Decoder(lambda _: FirstTokens())


@animal(WINDOWS)
def window_and_whole_in_a_layer() -> nn.Module:
    return Decoder(lambda _: Ways())


@animal(WINDOWS)
def sink_learned() -> nn.Module:
    return Decoder(lambda i: Sink(window=10 if i % 2 == 0 else None))


@animal(WINDOWS)
def softmax_off_by_one() -> nn.Module:
    return Decoder(lambda _: OffByOne())


@animal(SCORES)
def cap_scores_and_logits() -> nn.Module:
    return CappedLogits(lambda _: Capped(), vocab=VOCAB)


@animal(SCORES)
def qk_norm_before_rope() -> nn.Module:
    return Decoder(lambda _: NormBefore())


@animal(SCORES)
def qk_norm_after_rope() -> nn.Module:
    return Decoder(lambda _: NormAfter())


@animal(SCORES)
def qk_cosine() -> nn.Module:
    return Decoder(lambda _: Cosine())


@animal(SCORES)
def gated_attention() -> nn.Module:
    return Decoder(lambda _: Gated())


@animal(SCORES)
def sigmoid_attention() -> nn.Module:
    return Decoder(lambda _: SigmoidWeights())


@animal(SCORES)
def differential_attention() -> nn.Module:
    return Decoder(lambda i: Differential(i))
