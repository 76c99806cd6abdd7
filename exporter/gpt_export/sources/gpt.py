"""Sources that are our own decoder: a checkpoint's weights, or seeded ones of the GPT-2 sizes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from gpt_export_models.blank import blank, filled
from gpt_export_models.checkpoints import read_checkpoint
from gpt_export_models.config import GPT_CONFIG_124M, GPTConfig
from gpt_export_models.gpt import GPTDecoder, GPTModel
from gpt_export_models.tokenizer_folder import assumed_tokenizer, find_tokenizer
from torch import Tensor, nn

from gpt_export.runtime.signature import CacheShape
from gpt_export.sources.source import Source

GPT2_SIZES: Mapping[str, Mapping[str, Any]] = {
    "gpt2-124m": {"emb_dim": 768, "n_layers": 12, "n_heads": 12},
    "gpt2-355m": {"emb_dim": 1024, "n_layers": 24, "n_heads": 16},
    "gpt2-774m": {"emb_dim": 1280, "n_layers": 36, "n_heads": 20},
    "gpt2-1558m": {"emb_dim": 1600, "n_layers": 48, "n_heads": 25},
}
"""What the sizes of GPT-2 change in `GPT_CONFIG_124M` (Radford et al., 2019, table 2)."""

READINGS: Mapping[str, str] = {
    "from-scratch": "book (LLMs from scratch)",
    "nanogpt": "nanoGPT (or minGPT, build-nanogpt)",
    "mingpt": "minGPT of 2020",
    "huggingface": "Hugging Face GPT-2",
}
"""By family, whose code we have read."""


def seeded_gpt(name: str, seed: int, *, cached: bool = True) -> Source:
    """The source of a GPT-2 size whose weights are drawn after `torch.manual_seed(seed)`, as the book's class does."""
    config = GPTConfig.from_dict({**GPT_CONFIG_124M, **GPT2_SIZES[name]})
    torch.manual_seed(seed)
    weights = GPTModel(config).state_dict()
    record = {"kind": "seeded", "name": name, "seed": seed}
    judged_against = f"the book's GPT of this size with weights drawn from seed {seed}"
    return _source(config, weights, name=name, record=record, judged_against=judged_against, cached=cached)


def checkpoint_source(
    path: Path,
    *,
    name: str | None = None,
    config_file: Path | None = None,
    heads: int | None = None,
    adapter: Path | None = None,
    lora_alpha: float | None = None,
    cached: bool = True,
    notes: tuple[str, ...] = (),
) -> Source:
    """The source of a checkpoint that a family of `gpt_export_models.checkpoints` recognises.

    Args:
        name: the artifact's, in place of the path's own.
        config_file, heads, adapter, lora_alpha: what the checkpoint does not say itself, see `read_checkpoint`.
        notes: what is to be said before the checkpoint's own notes.

    Raises:
        CheckpointError: it is of no known family, damaged, or does not fit its configuration.
    """
    checkpoint = read_checkpoint(path, config_file=config_file, heads=heads, adapter=adapter, lora_alpha=lora_alpha)
    name = name or artifact_name(path)
    merged = {} if adapter is None else {"adapter": artifact_name(adapter)}
    return _source(
        checkpoint.config,
        checkpoint.tensors,
        name=name,
        record={"kind": "checkpoint", "family": checkpoint.family, "name": name} | merged,
        judged_against=_reading_of(checkpoint.family),
        cached=cached,
        notes=(*notes, *checkpoint.notes),
        folder=checkpoint.folder,
    )


def _reading_of(family: str) -> str:
    """What a checkpoint is judged against, and what to do if that is not the model it was trained as."""
    return (
        f"our reading of a {READINGS[family]} checkpoint: if you changed its code, judge it against yours: "
        "gpt-export validate ARTIFACT --against my_model:GPT --weights CHECKPOINT"
    )


def artifact_name(path: Path) -> str:
    """The name of a checkpoint's artifact: its folder's, or its file's without suffix."""
    resolved = path.resolve()
    return resolved.name if resolved.is_dir() else resolved.stem


def _source(
    config: GPTConfig,
    weights: Mapping[str, Tensor],
    *,
    name: str,
    record: Mapping[str, Any],
    judged_against: str,
    cached: bool,
    notes: tuple[str, ...] = (),
    folder: Path | None = None,
) -> Source:
    found = find_tokenizer(folder, config.vocab_size) if folder else assumed_tokenizer(config.vocab_size)

    def reference() -> nn.Module:
        return filled(lambda: GPTModel(config), {key: tensor.float() for key, tensor in weights.items()})

    skeleton = blank(lambda: GPTDecoder(config)) if cached else blank(lambda: GPTModel(config))
    cache = CacheShape.alike(n_layers=config.n_layers, n_heads=config.n_heads, head_dim=config.head_dim)
    return Source(
        name=name,
        record=record,
        judged_against=judged_against,
        vocab_size=config.vocab_size,
        context_length=config.context_length,
        reference=reference,
        skeleton=skeleton,
        weights=weights,
        tokenizer=found.tokenizer,
        carried=found.carried,
        made=found.made,
        cache=cache if cached else None,
        cacheable=cached,
        torchscript=False,
        alike_layers=True,
        configuration=config.to_dict(),
        notes=(*notes, *found.notes) if folder else notes,
    )
