"""The same attention in other words: einsum, rearranged axes, PyTorch's own layers, fused products."""

import math

import torch
from torch import Tensor, einsum, nn
from torch.nn import functional as F

from tests.zoo.animal import CONTEXT, VOCAB, animal
from tests.zoo.rotations import Halves
from tests.zoo.trunk import HEADS, WIDTH, Decoder

KIND = "einsum and PyTorch's own layers"
HEAD = WIDTH // HEADS


class Einsum(nn.Module):
    """Four axes throughout, batch and time in front: no transpose at all."""

    def __init__(self) -> None:
        super().__init__()
        self.wq, self.wk, self.wv = (nn.Parameter(torch.empty(WIDTH, HEADS, HEAD)) for _ in range(3))
        self.wo = nn.Parameter(torch.empty(HEADS, HEAD, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        t = x.size(1)
        q = einsum("btd,dhk->bthk", x, self.wq)
        k = einsum("bsd,dhk->bshk", x, self.wk)
        v = einsum("bsd,dhk->bshk", x, self.wv)
        scores = einsum("bthk,bshk->bhts", q, k) / math.sqrt(HEAD)
        mask = torch.ones(t, t, dtype=torch.bool, device=x.device).tril()
        weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
        return einsum("bthk,hkd->btd", einsum("bhts,bshk->bthk", weights, v), self.wo)


class GroupedEinsum(nn.Module):
    """Groups as an axis of their own; scores (b, group, head, t, s)."""

    def __init__(self, groups: int = 2) -> None:
        super().__init__()
        self.groups = groups
        self.q, self.o = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.kv = nn.Linear(WIDTH, 2 * groups * HEAD)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q = self.q(x).reshape(b, t, self.groups, HEADS // self.groups, HEAD)
        k, v = self.kv(x).reshape(b, t, self.groups, 2, HEAD).unbind(3)
        scores = einsum("btghd,bsgd->bghts", q * HEAD**-0.5, k)
        at = torch.arange(t, device=x.device)
        scores = scores + (at[None, :] > at[:, None]) * -1e4
        return self.o(einsum("bghts,bsgd->btghd", F.softmax(scores, -1), v).flatten(2))


def rearrange_heads(x: Tensor, heads: int) -> Tensor:
    """ "b n (h d) -> b h n d"."""
    return x.unflatten(-1, (heads, -1)).movedim(-2, 1)


class Rearranged(nn.Module):
    """As the libraries write it that rearrange axes by a picture; the norm is inside, the mask is made by a method."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.to_qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.to_out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.scale = HEAD**-0.5

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (rearrange_heads(part, HEADS) for part in self.to_qkv(self.norm(x)).chunk(3, dim=-1))
        sim = einsum("b h i d, b h j d -> b h i j", q * self.scale, k)
        i, j = sim.shape[-2:]
        causal_mask = torch.ones((i, j), dtype=torch.bool, device=x.device).triu(j - i + 1)
        sim = sim.masked_fill(causal_mask, -torch.finfo(sim.dtype).max)
        out = einsum("b h i j, b h j d -> b h i d", sim.softmax(dim=-1), v)
        return self.to_out(out.movedim(1, -2).flatten(-2))


class Multihead(nn.Module):
    """nn.MultiheadAttention with a causal mask, of booleans or of floats."""

    def __init__(self, boolean: bool, weights: bool) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.boolean, self.weights = boolean, weights

    def forward(self, x: Tensor) -> Tensor:
        t = x.size(1)
        if self.boolean:
            mask = torch.triu(torch.ones(t, t, dtype=torch.bool, device=x.device), diagonal=1)
        else:
            mask = nn.Transformer.generate_square_subsequent_mask(t, device=x.device, dtype=x.dtype)
        y, _ = self.attn(x, x, x, attn_mask=mask, need_weights=self.weights)
        return y


class SequenceFirst(nn.Module):
    """(T, B, C) inside, as nn.MultiheadAttention is without `batch_first`."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(WIDTH, HEADS)
        self.register_buffer("mask", torch.triu(torch.full((CONTEXT, CONTEXT), -torch.inf), 1))

    def forward(self, x: Tensor) -> Tensor:
        x, t = x.transpose(0, 1), x.size(1)
        return self.attn(x, x, x, attn_mask=self.mask[:t, :t], need_weights=False)[0].transpose(0, 1)


class Encoder(nn.Module):
    """nn.TransformerEncoder as a decoder: its layers, a causal mask, learned positions."""

    def __init__(self, norm_first: bool, hint: bool | None) -> None:
        super().__init__()
        self.tok, self.pos = nn.Embedding(VOCAB, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 64, batch_first=True, norm_first=norm_first, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, VOCAB)
        self.hint = hint

    def forward(self, ids: Tensor) -> Tensor:
        t = ids.size(1)
        x = self.tok(ids) + self.pos(torch.arange(t, device=ids.device))
        mask = nn.Transformer.generate_square_subsequent_mask(t, device=ids.device)
        if self.hint is None:  # as most people call it
            return self.head(self.encoder(x, mask))
        return self.head(self.encoder(x, mask=mask, is_causal=self.hint))


class Products(nn.Module):
    """The fused product with what it can be told: groups, a scale, a mask of floats."""

    def __init__(self, grouped: bool, mask: str) -> None:
        super().__init__()
        self.kv_heads = 2 if grouped else HEADS
        self.q, self.o = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.k, self.v = nn.Linear(WIDTH, self.kv_heads * HEAD), nn.Linear(WIDTH, self.kv_heads * HEAD)
        self.mask = mask

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q = self.q(x).view(b, t, HEADS, HEAD).transpose(1, 2)
        k, v = (part(x).view(b, t, self.kv_heads, HEAD).transpose(1, 2) for part in (self.k, self.v))
        grouped = self.kv_heads != HEADS
        if self.mask == "flag":
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3, enable_gqa=grouped)
        elif self.mask == "boolean":
            seen = torch.ones(t, t, dtype=torch.bool, device=x.device).tril()[None, None]
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=grouped)
        else:
            bias = torch.zeros(t, t, dtype=q.dtype, device=x.device)
            bias = bias.masked_fill(torch.ones_like(bias).triu(1).bool(), torch.finfo(q.dtype).min)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.expand(b, 1, t, t), enable_gqa=grouped)
        return self.o(y.transpose(1, 2).reshape(b, t, c))


class Tensorwise(nn.Module):
    """Everything by functions on bare parameters: addmm on flattened rows (GPT-2's Conv1D), `torch.matmul`, `where`."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.b = nn.Parameter(torch.empty(WIDTH, 3 * WIDTH)), nn.Parameter(torch.zeros(3 * WIDTH))
        self.wo, self.bo = nn.Parameter(torch.empty(WIDTH, WIDTH)), nn.Parameter(torch.zeros(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.size()
        mixed = torch.addmm(self.b, x.view(-1, c), self.w).view(b, t, 3, HEADS, HEAD)
        q, k, v = mixed[:, :, 0].permute(0, 2, 1, 3), mixed[:, :, 1].permute(0, 2, 3, 1), mixed[:, :, 2].transpose(1, 2)
        scores = torch.matmul(q, k) / (HEAD**0.5)
        rows = torch.arange(t).unsqueeze(-1)
        scores = torch.where(rows >= torch.arange(t), scores, torch.tensor(-1e10, dtype=scores.dtype))
        top = scores - scores.max(dim=-1, keepdim=True).values
        weights = top.exp() / top.exp().sum(dim=-1, keepdim=True)
        y = torch.matmul(weights, v).permute(0, 2, 1, 3).contiguous()
        return torch.addmm(self.bo, y.view(-1, c), self.wo).view(b, t, c)


@animal(KIND)
def einsum_attention() -> nn.Module:
    return Decoder(lambda _: Einsum())


@animal(KIND)
def einsum_grouped() -> nn.Module:
    return Decoder(lambda _: GroupedEinsum())


@animal(KIND)
def rearranged_attention() -> nn.Module:
    return Decoder(lambda _: Rearranged())


@animal(KIND)
def multihead_boolean_mask() -> nn.Module:
    return Decoder(lambda _: Multihead(boolean=True, weights=True))


@animal(KIND)
def multihead_float_mask() -> nn.Module:
    return Decoder(lambda _: Multihead(boolean=False, weights=False))


@animal(KIND)
def multihead_sequence_first() -> nn.Module:
    return Decoder(lambda _: SequenceFirst())


@animal(KIND)
def transformer_encoder() -> nn.Module:
    return Encoder(norm_first=False, hint=False)


@animal(KIND)
def transformer_encoder_mask_alone() -> nn.Module:
    return Encoder(norm_first=False, hint=None)


@animal(KIND)
def transformer_encoder_is_causal() -> nn.Module:
    return Encoder(norm_first=True, hint=True)


@animal(KIND)
def sdpa_enable_gqa() -> nn.Module:
    return Decoder(lambda _: Products(grouped=True, mask="flag"))


@animal(KIND)
def sdpa_boolean_mask() -> nn.Module:
    return Decoder(lambda _: Products(grouped=True, mask="boolean"))


@animal(KIND)
def sdpa_float_mask() -> nn.Module:
    return Decoder(lambda _: Products(grouped=False, mask="float"))


@animal(KIND)
def softmax_by_hand() -> nn.Module:
    """Positions in one layer of two."""
    return Decoder(lambda i: Halves() if i else Tensorwise())
