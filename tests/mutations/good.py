"""Correct decoders with random weights: what the faults are planted into, and what must raise no alarm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gpt_export.runtime.signature import CacheShape
from gpt_export.sources.source import Source
from gpt_export_models.blank import blank, filled
from gpt_export_models.config import GPTConfig
from gpt_export_models.gpt import GPTDecoder, GPTModel
from torch import Tensor


def random_source(config: GPTConfig, spread: float, seed: int, *, name: str = "random") -> Source:
    """A source with every parameter drawn: matrices and biases around 0, norm scales around 1.

    The three matrices of an attention are drawn apart, and no two layers are alike, so that a swap shows.
    """
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}
    for key, parameter in blank(lambda: GPTModel(config)).state_dict().items():
        drawn = torch.randn(parameter.shape, generator=generator) * spread
        weights[key] = drawn + 1 if key.endswith(".scale") else drawn
    if config.tied_head:
        weights["out_head.weight"] = weights["tok_emb.weight"]
    return source_of(config, weights, name=name)


def source_of(config: GPTConfig, weights: Mapping[str, Tensor], *, name: str) -> Source:
    """The source of a decoder with the given weights, cached as every real GPT is."""
    return Source(
        name=name,
        record={"kind": "test", "name": name},
        judged_against="a decoder with random weights",
        vocab_size=config.vocab_size,
        context_length=config.context_length,
        reference=lambda: filled(lambda: GPTModel(config), weights),
        skeleton=blank(lambda: GPTDecoder(config)),
        alike_layers=True,
        weights=weights,
        cache=CacheShape.alike(n_layers=config.n_layers, n_heads=config.n_heads, head_dim=config.head_dim),
        torchscript=False,
        tokenizer=None,
        configuration=config.to_dict(),
    )


VICTIM = GPTConfig(
    vocab_size=97,
    context_length=32,
    emb_dim=48,
    n_heads=4,
    n_layers=4,
    drop_rate=0.1,
    qkv_bias=True,
    activation="gelu_tanh",
    tied_head=False,
)
VICTIM_SPREAD = 0.08

HEADS = (1, 2, 3, 4, 6, 8, 12)
HEAD_DIMS = (8, 16, 24, 32, 48, 64)


def random_shape(i: int) -> tuple[GPTConfig, float]:
    """The `i`-th random decoder: any width to 768, depth to 12, heads, biases, activation, tying, and weight spread."""
    rng = np.random.default_rng((2026, i))
    width = float(np.exp(rng.uniform(np.log(16), np.log(768))))
    shapes = sorted(
        ((heads, dim) for heads in HEADS for dim in HEAD_DIMS if heads * dim <= 768),
        key=lambda shape: abs(np.log(shape[0] * shape[1] / width)),
    )
    heads, head_dim = (12, 64) if i % 10 == 0 else shapes[int(rng.integers(4))]
    spread = float(np.exp(rng.uniform(np.log(0.02), np.log(0.2))))
    layers = int(rng.integers(1, 13))
    large = heads * head_dim * layers > 2000
    config = GPTConfig(
        vocab_size=int(rng.integers(50, 600)),
        context_length=int(rng.choice((16, 64) if large else (16, 64, 256))),
        emb_dim=heads * head_dim,
        n_heads=heads,
        n_layers=layers,
        drop_rate=0.0,
        qkv_bias=bool(rng.integers(2)),
        activation="gelu_tanh" if rng.integers(2) else "gelu_erf",
        tied_head=bool(rng.integers(2)),
    )
    return config, spread


def random_good_model(i: int) -> tuple[Source, dict[str, Any]]:
    """A source of the `i`-th random shape, and what it is in words that a failure can show."""
    config, spread = random_shape(i)
    described = {
        key: getattr(config, key)
        for key in ("emb_dim", "n_layers", "n_heads", "vocab_size", "context_length", "tied_head")
    }
    return random_source(config, spread, seed=i), described | {"spread": round(spread, 3)}
