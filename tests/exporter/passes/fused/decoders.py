"""A small decoder over a cache in many dialects, written plainly, and its graph: what the fused passes are tried on."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx
import onnx_ir as ir
import torch
from gpt_export.graph.script import deprecations_hidden
from gpt_export.runtime.signature import (
    CacheShape,
    LayerCache,
    Signature,
    cached,
    example_sizes,
)
from gpt_export.weights.layout import Layout, set_layout
from torch import Tensor, nn
from torch.nn import functional

CONTEXT = 48
VOCAB = 61
PADDING = -1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What decoders differ in."""

    width: int = 64
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    layers: int = 2
    hidden: int = 96
    rotation: str = "halves"
    """halves, interleaved, none."""
    rotated: int = 16
    scale: float | None = None
    cap: float = 0.0
    logits_cap: float = 0.0
    windows: tuple[int, ...] = (0,)
    """Of the layers in turn; 0 sees everything."""
    alibi: bool = False
    sinks: bool = False
    qk_norm: str = "none"
    """none, before (the rotation), after."""
    norm: str = "rms"
    """rms, rms_offset (1 + w), rms_bare, layer."""
    sandwich: bool = False
    parallel: bool = False
    activation: str = "swiglu"
    """swiglu, geglu, relu2, gelu."""
    bias: bool = False
    packed: bool = False
    """One matrix for query, key and value, side by side within each head as GPT-NeoX has them."""
    tiled: bool = False
    """Keys repeated in the wrong order: head h reads pair h % kv_heads."""
    embedding_scale: float = 1.0
    tied: bool = False


DIALECTS: Mapping[str, Dialect] = {
    "llama": Dialect(),
    "interleaved": Dialect(rotation="interleaved"),
    "partial": Dialect(head_dim=32, rotated=16),
    "narrow": Dialect(rotated=8),
    "gemma": Dialect(
        norm="rms_offset",
        scale=0.1,
        cap=5.0,
        windows=(4, 0),
        sandwich=True,
        embedding_scale=8.0,
        activation="geglu",
        logits_cap=3.0,
    ),
    "alibi": Dialect(rotation="none", alibi=True),
    "sinks": Dialect(sinks=True, windows=(0, 5)),
    "normed": Dialect(qk_norm="before"),
    "normed_behind": Dialect(qk_norm="after", norm="rms_bare", activation="relu2"),
    "neox": Dialect(parallel=True, packed=True, bias=True, norm="layer", activation="gelu", kv_heads=4),
    "tiled": Dialect(tiled=True),
    "biased": Dialect(bias=True, tied=True),
}


class Norm(nn.Module):
    def __init__(self, width: int, kind: str, eps: float = 1e-5) -> None:
        super().__init__()
        self.kind, self.eps = kind, eps
        if kind != "rms_bare":
            self.weight = nn.Parameter(torch.zeros(width) if kind == "rms_offset" else torch.ones(width))
        if kind == "layer":
            self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "layer":
            centred = x - x.mean(-1, keepdim=True)
            return centred / torch.sqrt(centred.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight + self.bias
        wide = x.float()
        y = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        if self.kind == "rms":
            return self.weight * y.to(x.dtype)
        return y * (1.0 + self.weight) if self.kind == "rms_offset" else y


def rotate(x: Tensor, positions: Tensor, dialect: Dialect) -> Tensor:
    """`x` (batch, heads, new, width) turned by `positions` (batch, new)."""
    width = dialect.rotated
    frequencies = 100.0 ** (-torch.arange(0, width, 2, dtype=torch.float32) / width)
    angles = positions[:, None, :, None].float() * frequencies
    turned, rest = x[..., :width], x[..., width:]
    if dialect.rotation == "halves":
        cos, sin = torch.cat((angles, angles), -1).cos(), torch.cat((angles, angles), -1).sin()
        swapped = torch.cat((-turned[..., width // 2 :], turned[..., : width // 2]), -1)
        turned = turned * cos + swapped * sin
    else:
        even, odd = turned[..., 0::2], turned[..., 1::2]
        pair = (even * angles.cos() - odd * angles.sin(), even * angles.sin() + odd * angles.cos())
        turned = torch.stack(pair, -1).flatten(-2)
    return torch.cat((turned, rest), -1) if width < x.shape[-1] else turned


class Attention(nn.Module):
    def __init__(self, dialect: Dialect, window: int) -> None:
        super().__init__()
        d, self.dialect, self.window = dialect.head_dim, dialect, window
        if dialect.packed:
            self.qkv = nn.Linear(dialect.width, 3 * dialect.heads * d, bias=dialect.bias)
        else:
            self.query = nn.Linear(dialect.width, dialect.heads * d, bias=dialect.bias)
            self.key = nn.Linear(dialect.width, dialect.kv_heads * d, bias=dialect.bias)
            self.value = nn.Linear(dialect.width, dialect.kv_heads * d, bias=dialect.bias)
        self.out = nn.Linear(dialect.heads * d, dialect.width, bias=dialect.bias)
        if dialect.sinks:
            self.sinks = nn.Parameter(torch.zeros(dialect.heads))
        if dialect.qk_norm != "none":
            self.query_norm, self.key_norm = (Norm(d, dialect.norm) for _ in range(2))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch, new, _ = x.shape
        d = self.dialect.head_dim
        if self.dialect.packed:
            query, key, value = self.qkv(x).view(batch, new, self.dialect.heads, 3 * d).transpose(1, 2).chunk(3, -1)
            return query, key, value
        query = self.query(x).view(batch, new, self.dialect.heads, d).transpose(1, 2)
        key, value = (
            each(x).view(batch, new, self.dialect.kv_heads, d).transpose(1, 2) for each in (self.key, self.value)
        )
        return query, key, value

    def forward(self, x: Tensor, mask: Tensor, positions: Tensor, past_key: Tensor, past_value: Tensor) -> Any:
        dialect = self.dialect
        query, key, value = self.project(x)
        if dialect.qk_norm == "before":
            query, key = self.query_norm(query), self.key_norm(key)
        if dialect.rotation != "none":
            query, key = rotate(query, positions, dialect), rotate(key, positions, dialect)
        if dialect.qk_norm == "after":
            query, key = self.query_norm(query), self.key_norm(key)
        present_key, present_value = torch.cat((past_key, key), 2), torch.cat((past_value, value), 2)
        groups = dialect.heads // present_key.shape[1]
        if groups > 1 and dialect.tiled:
            keys, values = (each.repeat(1, groups, 1, 1) for each in (present_key, present_value))
        elif groups > 1:
            keys, values = (
                each[:, :, None].expand(-1, -1, groups, -1, -1).flatten(1, 2) for each in (present_key, present_value)
            )
        else:
            keys, values = present_key, present_value
        scores = query @ keys.transpose(-1, -2) * (dialect.scale or 1 / math.sqrt(dialect.head_dim))
        if dialect.cap:
            scores = torch.tanh(scores / dialect.cap) * dialect.cap
        total, new = keys.shape[2], query.shape[2]
        columns = torch.arange(total)
        rows = columns[total - new :]
        hidden = columns[None] > rows[:, None]
        if self.window:
            hidden = hidden | (columns[None] <= rows[:, None] - self.window)
        if hasattr(self, "holes"):
            hidden = hidden | self.holes[total - new : total, :total]
        if dialect.alibi:
            slopes = 2.0 ** -torch.arange(1.0, dialect.heads + 1)
            scores = scores + slopes[:, None, None] * (columns[None] - rows[:, None]).float()
        scores = scores.masked_fill(hidden, -torch.inf) + (1 - mask[:, None, None].float()) * PADDING
        if dialect.sinks:
            column = self.sinks[None, :, None, None].expand(scores.shape[0], -1, new, 1)
            weights = torch.softmax(torch.cat((scores, column), -1), -1)[..., :-1]
        else:
            weights = torch.softmax(scores, -1)
        return self.out((weights @ values).transpose(1, 2).flatten(2)), present_key, present_value


class Block(nn.Module):
    def __init__(self, dialect: Dialect, window: int) -> None:
        super().__init__()
        self.dialect = dialect
        norms = 4 if dialect.sandwich else 2
        self.norms = nn.ModuleList(Norm(dialect.width, dialect.norm) for _ in range(norms))
        self.attention = Attention(dialect, window)
        self.up = nn.Linear(dialect.width, dialect.hidden, bias=dialect.bias)
        self.down = nn.Linear(dialect.hidden, dialect.width, bias=dialect.bias)
        if dialect.activation in ("swiglu", "geglu"):
            self.gate = nn.Linear(dialect.width, dialect.hidden, bias=dialect.bias)

    def feed_forward(self, x: Tensor) -> Tensor:
        kind = self.dialect.activation
        if kind == "swiglu":
            return self.down(functional.silu(self.gate(x)) * self.up(x))
        if kind == "geglu":
            return self.down(functional.gelu(self.gate(x), approximate="tanh") * self.up(x))
        return self.down(functional.relu(self.up(x)) ** 2 if kind == "relu2" else functional.gelu(self.up(x)))

    def forward(self, x: Tensor, *attended: Tensor) -> Any:
        mixed, key, value = self.attention(self.norms[0](x), *attended)
        if self.dialect.parallel:
            return x + mixed + self.feed_forward(self.norms[1](x)), key, value
        if self.dialect.sandwich:
            x = x + self.norms[1](mixed)
            return x + self.norms[3](self.feed_forward(self.norms[2](x))), key, value
        x = x + mixed
        return x + self.feed_forward(self.norms[1](x)), key, value


class Decoder(nn.Module):
    """Ids, mask, positions and the past of each layer, to logits and the present of each."""

    def __init__(self, dialect: Dialect) -> None:
        super().__init__()
        self.dialect = dialect
        self.embedding = nn.Embedding(VOCAB, dialect.width)
        windows = [dialect.windows[layer % len(dialect.windows)] for layer in range(dialect.layers)]
        self.blocks = nn.ModuleList(Block(dialect, window) for window in windows)
        self.norm = Norm(dialect.width, dialect.norm)
        self.head = nn.Linear(dialect.width, VOCAB, bias=False)
        if dialect.tied:
            self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor, mask: Tensor, positions: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        x = self.embedding(ids)
        if self.dialect.embedding_scale != 1:
            x = x * self.dialect.embedding_scale
        present: list[Tensor] = []
        for layer, block in enumerate(self.blocks):
            x, key, value = block(x, mask, positions, past[2 * layer], past[2 * layer + 1])
            present += [key, value]
        logits = self.head(self.norm(x))
        if self.dialect.logits_cap:
            logits = torch.tanh(logits / self.dialect.logits_cap) * self.dialect.logits_cap
        return (logits, *present)


def seeded(dialect: Dialect, seed: int = 0) -> Decoder:
    """A decoder whose parameters are all random, norms included."""
    generator = torch.Generator().manual_seed(seed)
    decoder = Decoder(dialect).eval()
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            spread = 0.3 if parameter.ndim == 1 else 1.5 / math.sqrt(parameter.shape[-1])
            noise = torch.randn(parameter.shape, generator=generator) * spread
            parameter.copy_(
                noise + 1 if "norm" in name and name.endswith("weight") and dialect.norm != "rms_offset" else noise
            )
    return decoder


def cache_of(dialect: Dialect) -> CacheShape:
    heads = dialect.heads if dialect.packed else dialect.kv_heads
    return CacheShape(
        (LayerCache(n_heads=heads, key_dim=dialect.head_dim, value_dim=dialect.head_dim),) * dialect.layers
    )


def graph_of(decoder: Decoder, *, exported: bool = False) -> ir.Model:
    """The decoder in standard operators, the weights its inputs.

    Args:
        exported: by way of `torch.export`, which takes ten times as long; else traced.
    """
    signature = cached(VOCAB, cache_of(decoder.dialect))
    sizes = example_sizes(CONTEXT)
    examples = tuple(torch.zeros(spec.shape(sizes), dtype=getattr(torch, spec.dtype)) for spec in signature.inputs)
    with deprecations_hidden(), torch.no_grad():
        model = _exported(decoder, signature, examples) if exported else _traced(decoder, signature, examples)
    weights_to_inputs(model, signature)
    return model


def _exported(decoder: Decoder, signature: Signature, examples: tuple[Tensor, ...]) -> ir.Model:
    dynamic = tuple(dict.fromkeys(spec.dynamic_axes(), torch.export.Dim.DYNAMIC) for spec in signature.inputs)
    program = torch.export.export(decoder, examples, dynamic_shapes=(*dynamic[:3], dynamic[3:]), strict=False)
    model = torch.onnx.export(program, dynamo=True, opset_version=20, optimize=False, verbose=False).model
    assert isinstance(model, ir.Model)
    return model


def _traced(decoder: Decoder, signature: Signature, examples: tuple[Tensor, ...]) -> ir.Model:
    buffer = io.BytesIO()
    torch.onnx.export(
        decoder, examples, buffer, dynamo=False, do_constant_folding=False, opset_version=18,
        input_names=[spec.name for spec in signature.inputs], output_names=[spec.name for spec in signature.outputs],
        dynamic_axes={spec.name: spec.dynamic_axes() for spec in (*signature.inputs, *signature.outputs)},
    )  # fmt: skip
    return ir.from_proto(onnx.load_from_string(buffer.getvalue()))


def weights_to_inputs(model: ir.Model, signature: Signature) -> None:
    """Names and dims of the signature, and an input with a layout for each initializer that is a weight."""
    graph = model.graph
    if len(graph.inputs) == len(signature.inputs):
        for value, spec in zip(graph.inputs, signature.inputs, strict=True):
            value.name = spec.name
    given = {value.name: value for value in graph.inputs}
    graph.inputs.clear()
    for spec in signature.inputs:  # an input that nothing reads is left out where it is traced
        dtype = ir.DataType.INT64 if spec.dtype == "int64" else ir.DataType.FLOAT
        graph.inputs.append(given.get(spec.name) or ir.Value(name=spec.name, type=ir.TensorType(dtype)))
    for values, specs in ((graph.inputs, signature.inputs), (graph.outputs, signature.outputs)):
        for value, spec in zip(values, specs, strict=True):
            value.name = spec.name
            value.shape = ir.Shape([ir.SymbolicDim(dim) if isinstance(dim, str) else dim for dim in spec.dims])
    for name, value in list(graph.initializers.items()):
        graph.initializers.pop(name)
        value.const_value = None
        set_layout(value, Layout.of(name))
        graph.inputs.append(value)
