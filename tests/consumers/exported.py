"""GPTs of each kind as artifacts, with the greedy tokens of the eager PyTorch models that they were made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpt_export.artifact.reading import Artifact
from gpt_export.pipeline import stages
from gpt_export.pipeline.config import ExportConfig
from gpt_export.sources.gpt import checkpoint_source
from gpt_export.sources.source import source_of_module
from gpt_export.sources.transformers_folder import transformers_source
from gpt_export.targets.facts import Facts
from torch import nn

from tests.byte_gpt import byte_gpt, save_byte_gpt
from tests.integration.checkpoints import Logits, hugging_face, nanogpt
from tests.zoo.heads import Expanded
from tests.zoo.trunk import Decoder

STEPS = 20
MARGIN = 1e-4
"""The least lead of a chosen token's logit, as a share of the largest: a hundred times what float32 may cost."""

Prompts = list[list[int]]


@dataclass(frozen=True)
class Exported:
    """An artifact, and the eager model."""

    folder: Path
    logits: Logits
    vocab_size: int

    @property
    def facts(self) -> Facts:
        return Facts.of(self.folder, Artifact.open(self.folder).manifest)

    @property
    def one(self) -> Prompts:
        """A batch of one prompt."""
        return self.batch[:1]

    @property
    def batch(self) -> Prompts:
        """Prompts of unequal lengths."""
        rng = np.random.default_rng(6)
        return [rng.integers(0, min(self.vocab_size, 50256) - 1, length).tolist() for length in (4, 1, 7)]

    def job(self, prompts: Prompts, variant: str = "fp32", **more: Any) -> dict[str, Any]:
        """What the scripts of this folder take."""
        values = {"folder": str(self.folder), "path": self.facts.variants[variant]["path"], "steps": STEPS}
        return values | {"prompts": prompts, "pad_id": self.facts.end_id, "default": variant == "fp32"} | more

    def eager(self, prompts: Prompts) -> list[list[int]]:
        """The next tokens of every prompt by eager PyTorch, a prompt at a time. No choice is a close one."""
        return [self._eager(prompt) for prompt in prompts]

    def _eager(self, prompt: Sequence[int]) -> list[int]:
        ids = list(prompt)
        for _ in range(STEPS):
            row = self.logits(np.array([ids], np.int64))[0, -1]
            second, first = np.sort(row)[-2:]
            assert first - second > MARGIN * np.abs(row).max(), "choose other seeds: two tokens are too close"
            ids.append(int(row.argmax()))
        assert self.facts.end_id not in ids, "choose other seeds: the text ends"
        return ids[len(prompt) :]


def gpt2(folder: Path) -> Exported:
    """transformers' GPT-2 with its vocabulary, large enough for external data. It carries no tokenizer."""
    sizes = {"vocab_size": 50257, "n_positions": 64, "n_embd": 96, "n_layer": 3, "n_head": 4}
    made = hugging_face(folder / "gpt2-small", **sizes)
    return _export(made.path, folder, made.logits, made.vocab_size)


def padded(folder: Path) -> Exported:
    """nanoGPT with GPT-2's vocabulary padded to 50304, no biases, the exact GELU; one self-contained file."""
    made = nanogpt(folder / "nanogpt", vocab_size=50304, n_embd=40, n_head=4, block_size=64)
    return _export(made.path, folder, made.logits, made.vocab_size)


def carried(folder: Path) -> Exported:
    """The book's GPT over bytes, whose tokenizer lies beside it."""
    path, config_file = save_byte_gpt(folder / "bytes")
    return _export(path, folder, _byte_logits, 257, config_file)


def ids_alone(folder: Path) -> Exported:
    """The same without a tokenizer."""
    path, config_file = save_byte_gpt(folder / "ids", tokenizer=False)
    return _export(path, folder, _byte_logits, 257, config_file)


def uncached(folder: Path) -> Exported:
    """The same without a cache."""
    path, config_file = save_byte_gpt(folder / "uncached")
    return _export(path, folder, _byte_logits, 257, config_file, cached=False)


def llama(folder: Path) -> Exported:
    """transformers' Llama, four heads of queries on two of keys and values, from its folder; for ids alone."""
    import transformers

    torch.manual_seed(11)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "max_position_embeddings": 64}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    config = transformers.LlamaConfig(vocab_size=300, initializer_range=0.2, **sizes, **heads)
    model = transformers.LlamaForCausalLM(config).eval()
    model.save_pretrained(folder / "llama")
    source = transformers_source(folder / "llama", name="llama")
    made = stages.export(source, ExportConfig(), folder / "artifact").folder
    return Exported(made, lambda ids: _logits(model, ids), 300)


def rotary(folder: Path) -> Exported:
    """A module of somebody's own with rotation and grouped heads, which no library knows."""
    torch.manual_seed(12)
    model = Decoder(lambda _: Expanded()).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False).mul_(3 if parameter.ndim > 1 else 1)
    source = source_of_module(model, name="rotary", record={"kind": "module"}, context_length=64)
    made = stages.export(source, ExportConfig(), folder / "artifact").folder
    return Exported(made, lambda ids: _logits(model, ids), source.vocab_size)


KINDS: dict[str, Callable[[Path], Exported]] = {
    "gpt2": gpt2,
    "padded": padded,
    "carried": carried,
    "ids": ids_alone,
    "uncached": uncached,
    "llama": llama,
    "rotary": rotary,
}
GROUPED = ("llama", "rotary")
"""Kinds with rotation and fewer heads of keys and values than of queries."""
CACHED = ("gpt2", "padded", "carried", "ids", *GROUPED)


def column(kind: str) -> str:
    """The column of the compatibility table that a float32 artifact of this kind stands for."""
    return "rotary" if kind in GROUPED else "fp32"


def _export(
    path: Path, folder: Path, logits: Logits, vocab_size: int, config_file: Path | None = None, cached: bool = True
) -> Exported:
    source = checkpoint_source(path, config_file=config_file, cached=cached)
    return Exported(stages.export(source, ExportConfig(), folder / "artifact").folder, logits, vocab_size)


def _logits(model: nn.Module, ids: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        scores = model(torch.from_numpy(ids))
    return getattr(scores, "logits", scores).numpy()


def _byte_logits(ids: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return byte_gpt()(torch.from_numpy(ids)).numpy()
