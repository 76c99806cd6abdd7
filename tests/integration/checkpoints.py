"""Checkpoints as their own libraries write them, each with that library's model to compare with."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.models.checkpoints import nanogpt_oracle
from tests.models.checkpoints.oracles import spread

Logits = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Made:
    """A checkpoint, the options that its export needs, and its library's float32 model."""

    path: Path
    options: tuple[str, ...]
    model: nn.Module
    logits: Logits
    vocab_size: int
    context_length: int


def hugging_face(folder: Path, dtype: torch.dtype = torch.float32, **settings: Any) -> Made:
    """`GPT2LMHeadModel.save_pretrained`; `shards`, `pickle` and `bare` change how, all else is of the configuration."""
    transformers = pytest.importorskip("transformers", reason="transformers is the oracle: pip install transformers")
    how = {name: settings.pop(name, False) for name in ("shards", "pickle", "bare")}
    sizes = {"vocab_size": 57, "n_positions": 24, "n_embd": 35, "n_layer": 2, "n_head": 5}
    # ids 0 to 56 have no end of text among them, so that nothing stops transformers' generate
    config = transformers.GPT2Config(**sizes | settings, bos_token_id=None, eos_token_id=None, pad_token_id=0)
    kind = transformers.GPT2Model if how["bare"] else transformers.GPT2LMHeadModel
    model = spread(kind(config)).to(dtype)
    model.save_pretrained(folder, max_shard_size="30KB" if how["shards"] else "1GB")
    if how["pickle"]:
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    whole = transformers.GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
    return Made(folder, (), whole, lambda ids: _run(whole, ids, "logits"), config.vocab_size, config.n_positions)


def book(folder: Path, *, wrapped: bool = False, **changes: Any) -> Made:
    """`torch.save(model.state_dict())` of the book's package, and its configuration as JSON."""
    chapter = pytest.importorskip(
        "llms_from_scratch.ch04", reason="the book's package is the oracle: pip install --no-deps llms-from-scratch"
    )
    config = {"vocab_size": 61, "context_length": 24, "emb_dim": 36, "n_heads": 3, "n_layers": 2, "drop_rate": 0.1}
    config |= {"qkv_bias": False} | changes
    model = spread(chapter.GPTModel(config))
    folder.mkdir()
    state = model.state_dict()
    torch.save({"model_state_dict": state, "epoch": 3} if wrapped else state, folder / "model.pth")
    (folder / "book.json").write_text(json.dumps(config), encoding="utf-8")
    options = ("--config", str(folder / "book.json"))
    return Made(folder / "model.pth", options, model, lambda ids: _run(model, ids), config["vocab_size"], 24)


def nanogpt(folder: Path, *, prefix: str = "", **changes: Any) -> Made:
    """`ckpt.pt` as train.py writes it."""
    args = nanogpt_oracle.ARGS | {"block_size": 24} | changes
    model = spread(nanogpt_oracle.Reference(args))
    folder.mkdir()
    nanogpt_oracle.save(folder / "ckpt.pt", model, args, prefix)
    return Made(folder / "ckpt.pt", (), model, lambda ids: _run(model, ids), args["vocab_size"], args["block_size"])


def _run(model: nn.Module, ids: np.ndarray, attribute: str = "") -> np.ndarray:
    with torch.no_grad():
        found = model(torch.from_numpy(ids))
    return (getattr(found, attribute) if attribute else found).numpy()


FAMILIES: dict[str, Callable[[Path], Made]] = {
    "hf": hugging_face,
    "hf-untied": lambda folder: hugging_face(folder, tie_word_embeddings=False),
    "hf-inner-erf-eps": lambda folder: hugging_face(
        folder, n_inner=50, activation_function="gelu", layer_norm_epsilon=1e-3, n_head=7
    ),
    "hf-one-head-one-layer": lambda folder: hugging_face(folder, n_head=1, n_layer=1, n_embd=9),
    "hf-float16": lambda folder: hugging_face(folder, torch.float16, tie_word_embeddings=False),
    "hf-bfloat16": lambda folder: hugging_face(folder, torch.bfloat16),
    "hf-sharded": lambda folder: hugging_face(folder, shards=True),
    "hf-pickle": lambda folder: hugging_face(folder, pickle=True),
    "hf-bare": lambda folder: hugging_face(folder, bare=True),
    "book": book,
    "book-qkv-bias-wrapped": lambda folder: book(folder, qkv_bias=True, wrapped=True, n_heads=9),
    "nanogpt": nanogpt,
    "nanogpt-bias-compiled": lambda folder: nanogpt(folder, bias=True, prefix="_orig_mod."),
    "nanogpt-padded-gpt2": lambda folder: nanogpt(folder, vocab_size=50304, n_embd=10),
}
