"""What reading a checkpoint gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from gpt_export_models.config import GPTConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A GPT's configuration and its weights, which stay in the files until they are used."""

    family: str
    """The registered name of the format: `from-scratch`, `huggingface` or `nanogpt`."""
    config: GPTConfig
    tensors: Mapping[str, Tensor]
    """Exactly the names of `GPTModel(config).state_dict()`, in its shapes, in the dtype of the file. The values are
    views into mapped files, so a `Linear` that the file holds as (in, out) is a transposed view. With `tied_head`,
    `out_head.weight` is the same object as `tok_emb.weight`."""
    folder: Path
    """Where the files of a tokenizer would lie."""
    files: tuple[Path, ...]
    """The files that the weights and the configuration came from."""
    notes: tuple[str, ...]
    """What was assumed or ignored, in words for the user."""
