"""A small GPT over bytes, saved as the book saves its model, with a tokenizer beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from gpt_export_models.config import GPTConfig
from gpt_export_models.gpt import GPTModel
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from tests import samples

END = "<|endoftext|>"
END_ID = 256
CONTEXT = 40
CONFIG: dict[str, Any] = {
    "vocab_size": 257,
    "context_length": CONTEXT,
    "emb_dim": 24,
    "n_heads": 3,
    "n_layers": 2,
    "drop_rate": 0.0,
    "qkv_bias": False,
}


def byte_characters() -> list[str]:
    """The characters that stand for the bytes 0 to 255 in files of byte-level tokenizers."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    text = bytes(range(256)).decode("latin-1")
    shown = [char for char in text if char in alphabet]
    moved = iter(sorted(set(alphabet) - set(shown)))
    return [char if char in shown else next(moved) for char in text]


def byte_tokenizer() -> Tokenizer:
    """One token a byte, id and byte the same, and an end-of-text token after them."""
    tokenizer = Tokenizer(BPE(vocab={char: i for i, char in enumerate(byte_characters())}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END])
    return tokenizer


def byte_gpt() -> torch.nn.Module:
    return samples.seeded(GPTModel(GPTConfig.from_dict(CONFIG))).eval()


def save_byte_gpt(folder: Path, *, tokenizer: bool = True) -> tuple[Path, Path]:
    """Writes the checkpoint to `folder`; gives its path and that of its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(byte_gpt().state_dict(), folder / "model.pth")
    (folder / "book.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    if tokenizer:
        byte_tokenizer().save(str(folder / "tokenizer.json"))
    return folder / "model.pth", folder / "book.json"
