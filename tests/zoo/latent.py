"""Keys and values that are made of less, shared by layers, or handed from the lower half to the upper."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.animal import CONTEXT, VOCAB, animal
from tests.zoo.trunk import HEADS, WIDTH, Decoder, SwiGLU

KIND = "latent and shared keys and values"
HEAD, LATENT, TURNING = WIDTH // HEADS, 12, 4


def interleaved(x: Tensor) -> Tensor:
    """(B, H, T, even) turned in pairs of neighbours."""
    width = x.size(-1)
    rates = 1e4 ** (-torch.arange(0, width, 2, device=x.device).to(x.dtype) / width)
    angles = torch.arange(x.size(2), device=x.device).to(x.dtype)[:, None] * rates
    even, odd = x[..., ::2], x[..., 1::2]
    pairs = (even * angles.cos() - odd * angles.sin(), even * angles.sin() + odd * angles.cos())
    return torch.stack(pairs, dim=-1).flatten(-2)


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """(B, H, T, w) each -> (B, T, H w), causal."""
    t = q.size(2)
    scores = q @ k.transpose(2, 3) * scale + torch.full((t, t), float("-inf"), device=q.device).triu(1)
    return (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)


class Latent(nn.Module):
    """DeepSeek's: keys and values from one narrow latent, and one rotated key for all heads beside them."""

    def __init__(self, query_rank: int | None = 16) -> None:
        super().__init__()
        wide = HEADS * (HEAD + TURNING)
        if query_rank is None:
            self.q = nn.Linear(WIDTH, wide, bias=False)
        else:
            self.q = nn.Sequential(
                nn.Linear(WIDTH, query_rank, bias=False),
                nn.RMSNorm(query_rank),
                nn.Linear(query_rank, wide, bias=False),
            )
        self.kv_down = nn.Linear(WIDTH, LATENT + TURNING, bias=False)
        self.kv_norm = nn.RMSNorm(LATENT)
        self.kv_up = nn.Linear(LATENT, HEADS * 2 * HEAD, bias=False)
        self.o = nn.Linear(HEADS * HEAD, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q = self.q(x).view(b, t, HEADS, HEAD + TURNING).transpose(1, 2)
        still, turning = q.split((HEAD, TURNING), dim=-1)
        latent, key = self.kv_down(x).split((LATENT, TURNING), dim=-1)
        k, v = self.kv_up(self.kv_norm(latent)).view(b, t, HEADS, 2 * HEAD).transpose(1, 2).chunk(2, dim=-1)
        key = interleaved(key.view(b, 1, t, TURNING)).expand(-1, HEADS, -1, -1)
        q, k = torch.cat((still, interleaved(turning)), dim=-1), torch.cat((k, key), dim=-1)
        return self.o(attend(q, k, v, (HEAD + TURNING) ** -0.5))


class Absorbed(nn.Module):
    """The same idea with the upward product absorbed: every head attends the latent itself, as one key and value."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(WIDTH, HEADS * LATENT, bias=False)
        self.down = nn.Linear(WIDTH, LATENT, bias=False)
        self.up = nn.Parameter(torch.empty(HEADS, LATENT, HEAD))
        self.o = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q = self.q(x).view(b, t, HEADS, LATENT).transpose(1, 2)
        latent = self.down(x).unsqueeze(1)
        scores = q @ latent.transpose(2, 3) / LATENT**0.5
        scores = scores.masked_fill(torch.ones(t, t, dtype=torch.bool).triu(1), -torch.inf)
        seen = scores.softmax(-1) @ latent
        return self.o(torch.einsum("bhtl,hld->bthd", seen, self.up).flatten(2))


class SharedKeyValue(nn.Module):
    """Keys are values: one product for both, keys rotated."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.kv, self.o = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q = self.q(x).view(b, t, HEADS, HEAD).transpose(1, 2)
        kv = self.kv(x).view(b, t, HEADS, HEAD).transpose(1, 2)
        return self.o(attend(interleaved(q), interleaved(kv), kv, HEAD**-0.5))


class Shared(nn.Module):
    """Every second layer reads the keys and values of the one below it and has none of its own."""

    def __init__(self, layers: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, WIDTH)
        self.norms = nn.ModuleList([nn.RMSNorm(WIDTH) for _ in range(2 * layers + 1)])
        self.q = nn.ModuleList([nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(layers)])
        self.o = nn.ModuleList([nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(layers)])
        self.kv = nn.ModuleList([nn.Linear(WIDTH, 2 * WIDTH, bias=False) for _ in range(layers // 2)])
        self.mlp = nn.ModuleList([SwiGLU() for _ in range(layers)])
        self.head = nn.Linear(WIDTH, VOCAB, bias=False)

    def heads(self, x: Tensor) -> Tensor:
        return x.view(x.size(0), x.size(1), HEADS, HEAD).transpose(1, 2)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        k = v = x
        for i, (q, o, mlp) in enumerate(zip(self.q, self.o, self.mlp, strict=True)):
            normed = self.norms[2 * i](x)
            if i % 2 == 0:
                k, v = (self.heads(part) for part in self.kv[i // 2](normed).chunk(2, dim=-1))
                k = interleaved(k)
            x = x + o(attend(interleaved(self.heads(q(normed))), k, v, HEAD**-0.5))
            x = x + mlp(self.norms[2 * i + 1](x))
        return self.head(self.norms[-1](x))


class YouOnlyCacheOnce(nn.Module):
    """The lower half attends within a window; the upper half shares one set of keys and values made in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.pos = nn.Embedding(VOCAB, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.lower = nn.Linear(WIDTH, 3 * WIDTH)
        self.kv = nn.Linear(WIDTH, 2 * WIDTH)
        self.upper = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(2)])
        self.out = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(3)])
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCAB)

    def split(self, x: Tensor) -> Tensor:
        return x.view(x.size(0), x.size(1), HEADS, HEAD).transpose(1, 2)

    def forward(self, ids: Tensor) -> Tensor:
        at = torch.arange(ids.size(1), device=ids.device)
        x = self.embed(ids) + self.pos(at)
        near = (at[:, None] >= at) & (at[:, None] - at < 8)
        q, k, v = (self.split(part) for part in self.lower(self.norm(x)).chunk(3, dim=-1))
        x = x + self.out[0](F.scaled_dot_product_attention(q, k, v, attn_mask=near).transpose(1, 2).flatten(2))
        k, v = (self.split(part) for part in self.kv(self.norm(x)).chunk(2, dim=-1))
        for i, upper in enumerate(self.upper):
            y = F.scaled_dot_product_attention(self.split(upper(self.norm(x))), k, v, is_causal=True)
            x = x + self.out[i + 1](y.transpose(1, 2).flatten(2))
        return self.head(self.norm(x))


class CrossOver(nn.Module):
    """Values of the first layer are mixed into those of every later one (a value residual)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, WIDTH)
        self.qkv = nn.ModuleList([nn.Linear(WIDTH, 3 * WIDTH, bias=False) for _ in range(3)])
        self.o = nn.ModuleList([nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3)])
        self.shares = nn.Parameter(torch.full((3,), 0.5))
        self.head = nn.Linear(WIDTH, VOCAB)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        first: Tensor | None = None
        for i, (qkv, o) in enumerate(zip(self.qkv, self.o, strict=True)):
            b, t, c = x.shape
            q, k, v = qkv(F.rms_norm(x, (c,))).view(b, t, 3 * HEADS, HEAD).transpose(1, 2).chunk(3, dim=1)
            first = v if first is None else first
            share = torch.sigmoid(self.shares[i])
            v = share * v + (1 - share) * first
            y = F.scaled_dot_product_attention(interleaved(q), interleaved(k), v, is_causal=True)
            x = x + o(y.transpose(1, 2).reshape(b, t, c))
        return self.head(F.rms_norm(x, (WIDTH,)))


@animal(KIND)
def mla() -> nn.Module:
    return Decoder(lambda _: Latent())


@animal(KIND)
def mla_without_query_latent() -> nn.Module:
    return Decoder(lambda _: Latent(query_rank=None))


@animal(KIND)
def mla_absorbed() -> nn.Module:
    """Positions come from the causal mask alone."""
    return Decoder(lambda _: Absorbed())


@animal(KIND)
def keys_are_values() -> nn.Module:
    return Decoder(lambda _: SharedKeyValue())


@animal(KIND)
def keys_shared_by_layers() -> nn.Module:
    return Shared()


@animal(KIND)
def yoco() -> nn.Module:
    return YouOnlyCacheOnce()


@animal(KIND)
def value_residual() -> nn.Module:
    return CrossOver()
