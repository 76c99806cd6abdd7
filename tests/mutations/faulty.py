"""Decoders that are wrong in one place: what is scripted in place of the good one, while the reference stays good."""

from __future__ import annotations

import torch
from gpt_export_models.gpt import GPTDecoder, LayerNorm, MultiHeadAttention
from torch import Tensor, nn
from torch.nn import functional

from tests.mutations.good import VICTIM


class SeesTheNextToken(GPTDecoder):
    """The causal mask is off by one."""

    @torch.jit.export
    def attention_bias(self, attention_mask: Tensor, n_new: int, like: Tensor) -> Tensor:
        n_all = attention_mask.shape[1]
        key_at = torch.arange(n_all, device=attention_mask.device)
        query_at = torch.arange(n_new, device=attention_mask.device) + (n_all - n_new)
        allowed = (key_at.unsqueeze(0) <= query_at.unsqueeze(1) + 1) & (attention_mask > 0).unsqueeze(1).unsqueeze(1)
        return torch.zeros_like(allowed, dtype=like.dtype).masked_fill(~allowed, self.mask_fill)


class MasksWithoutThePast(GPTDecoder):
    """The causal mask counts queries from 0, not from the end of the past: wrong only behind a past."""

    @torch.jit.export
    def attention_bias(self, attention_mask: Tensor, n_new: int, like: Tensor) -> Tensor:
        causal = torch.arange(attention_mask.shape[1], device=attention_mask.device).unsqueeze(0) <= torch.arange(
            n_new, device=attention_mask.device
        ).unsqueeze(1)
        allowed = causal & (attention_mask > 0).unsqueeze(1).unsqueeze(1)
        return torch.zeros_like(allowed, dtype=like.dtype).masked_fill(~allowed, self.mask_fill)


class SeesEverything(GPTDecoder):
    """There is no causal mask."""

    @torch.jit.export
    def attention_bias(self, attention_mask: Tensor, n_new: int, like: Tensor) -> Tensor:
        every = torch.ones(n_new, attention_mask.shape[1], device=attention_mask.device) > 0
        allowed = every & (attention_mask > 0).unsqueeze(1).unsqueeze(1)
        return torch.zeros_like(allowed, dtype=like.dtype).masked_fill(~allowed, self.mask_fill)


class SeesPadding(GPTDecoder):
    """The attention mask is used for its length alone."""

    @torch.jit.export
    def attention_bias(self, attention_mask: Tensor, n_new: int, like: Tensor) -> Tensor:
        n_all = attention_mask.shape[1]
        query_at = torch.arange(n_new, device=attention_mask.device) + (n_all - n_new)
        allowed = (torch.arange(n_all, device=attention_mask.device).unsqueeze(0) <= query_at.unsqueeze(1)) & (
            attention_mask > -1
        ).unsqueeze(1).unsqueeze(1)
        return torch.zeros_like(allowed, dtype=like.dtype).masked_fill(~allowed, self.mask_fill)


class ShiftsPositions(GPTDecoder):
    """The first token is at position 1; the last position is used twice so that every case still runs."""

    @torch.jit.export
    def embed(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        shifted = torch.clamp(position_ids + 1, max=self.pos_emb.weight.shape[0] - 1)
        x: Tensor = self.tok_emb(input_ids) + self.pos_emb(shifted)
        return x


class CountsPositionsItself(GPTDecoder):
    """Positions are counted from 0 in every call: right until there is padding on the left, or a past."""

    @torch.jit.export
    def embed(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        positions = torch.arange(input_ids.shape[1], device=input_ids.device).unsqueeze(0) + 0 * position_ids
        x: Tensor = self.tok_emb(input_ids) + self.pos_emb(positions)
        return x


class ForgetsThePast(MultiHeadAttention):
    """Attends to the new tokens alone; the present is still past and new."""

    def forward(
        self, x_bte: Tensor, bias_b1ts: Tensor, past_key_bhpd: Tensor, past_value_bhpd: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        query = self.split_heads(self.W_query(x_bte)) * self.query_scale
        key, value = self.split_heads(self.W_key(x_bte)), self.split_heads(self.W_value(x_bte))
        bias = bias_b1ts[:, :, :, past_key_bhpd.shape[2] :]
        mixed = (torch.softmax(query @ key.transpose(2, 3) + bias, dim=-1) @ value).transpose(1, 2)
        out = self.out_proj(mixed.reshape(x_bte.shape[0], x_bte.shape[1], self.n_heads * self.head_dim))
        return out, torch.cat([past_key_bhpd, key], dim=2), torch.cat([past_value_bhpd, value], dim=2)


class JoinsNewBeforePast(MultiHeadAttention):
    """The new keys and values stand before those of the past."""

    def forward(
        self, x_bte: Tensor, bias_b1ts: Tensor, past_key_bhpd: Tensor, past_value_bhpd: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        query = self.split_heads(self.W_query(x_bte)) * self.query_scale
        key = torch.cat([self.split_heads(self.W_key(x_bte)), past_key_bhpd], dim=2)
        value = torch.cat([self.split_heads(self.W_value(x_bte)), past_value_bhpd], dim=2)
        mixed = (torch.softmax(query @ key.transpose(2, 3) + bias_b1ts, dim=-1) @ value).transpose(1, 2)
        out = self.out_proj(mixed.reshape(x_bte.shape[0], x_bte.shape[1], self.n_heads * self.head_dim))
        return out, key, value


class InterleavesHeads(MultiHeadAttention):
    """Every `n_heads`-th column belongs to a head, in place of adjoining ones."""

    def split_heads(self, x_bte: Tensor) -> Tensor:
        return x_bte.view(x_bte.shape[0], x_bte.shape[1], self.head_dim, self.n_heads).permute(0, 3, 1, 2)


class SampleVarianceNorm(LayerNorm):
    """Divides by n - 1, as `torch.var` does unless told otherwise."""

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(dim=-1, keepdim=True)
        variance = (centred * centred).sum(dim=-1, keepdim=True) / (self.emb_dim - 1)
        return centred / torch.sqrt(variance + self.eps) * self.scale + self.shift


class DropoutLeftOn(nn.Module):
    """Dropout whatever the mode."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.rate, True)


def erf_gelu(layer: int) -> GPTDecoder:
    decoder = GPTDecoder(VICTIM)
    decoder.trf_blocks[layer].ff.layers[1] = nn.GELU(approximate="none")
    return decoder


def relu(layer: int) -> GPTDecoder:
    decoder = GPTDecoder(VICTIM)
    decoder.trf_blocks[layer].ff.layers[1] = nn.ReLU()
    return decoder


class QuickGelu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


def quick_gelu(layer: int) -> GPTDecoder:
    decoder = GPTDecoder(VICTIM)
    decoder.trf_blocks[layer].ff.layers[1] = QuickGelu()
    return decoder


def other_epsilon(layer: int, norm: str) -> GPTDecoder:
    decoder = GPTDecoder(VICTIM)
    getattr(decoder.trf_blocks[layer], norm).eps = 1e-12
    return decoder


def no_scale(layer: int) -> GPTDecoder:
    decoder = GPTDecoder(VICTIM)
    decoder.trf_blocks[layer].att.query_scale = 1.0
    return decoder


def attention(layer: int, kind: type[MultiHeadAttention]) -> GPTDecoder:
    decoder = GPTDecoder(VICTIM)
    decoder.trf_blocks[layer].att = kind(VICTIM)
    return decoder


def attention_dropout(layer: int) -> GPTDecoder:
    decoder = GPTDecoder(VICTIM)
    decoder.trf_blocks[layer].att.dropout = DropoutLeftOn(0.1)
    return decoder


def embedding_dropout() -> GPTDecoder:
    decoder = GPTDecoder(VICTIM)
    decoder.drop_emb = DropoutLeftOn(0.1)
    return decoder


def sample_variance() -> GPTDecoder:
    decoder = GPTDecoder(VICTIM)
    decoder.final_norm = SampleVarianceNorm(VICTIM.emb_dim)
    return decoder
