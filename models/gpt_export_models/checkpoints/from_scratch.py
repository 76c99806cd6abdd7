"""State dicts of the GPTModel in "LLMs from scratch" by Sebastian Raschka (chapters 4 to 7)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from gpt_export_models.checkpoints.checkpoint import Checkpoint
from gpt_export_models.checkpoints.contract import CANONICAL, Form
from gpt_export_models.checkpoints.fit import (
    Declared,
    fit,
    share_storage,
    to_config,
    without_buffers,
)
from gpt_export_models.checkpoints.layout import Layout
from gpt_export_models.checkpoints.low_rank_layers import merge_low_rank
from gpt_export_models.checkpoints.registry import Family, register
from gpt_export_models.checkpoints.statements import LORA_ALPHA, head_count
from gpt_export_models.checkpoints.stored import Stored
from gpt_export_models.config import GPT_CONFIG_124M
from gpt_export_models.errors import CheckpointError
from gpt_export_models.json_files import read_json_object
from gpt_export_models.problems import some

LAYOUT = Layout(
    blocks="trf_blocks",
    names={name: (name,) for name in CANONICAL},
    buffers=("trf_blocks.{}.att.mask",),
)


LANDMARK = re.compile(r"tok_emb\.weight|pos_emb\.weight|trf_blocks\.[0-9]+\.")


def recognises(state: Mapping[str, Any], beside: Mapping[str, Any]) -> bool:  # noqa: ARG001
    """Whether the state dict has the book's names; minGPT of 2020 shares one of them."""
    return any(name.startswith("trf_blocks.") for name in state) or not any(
        name.startswith("blocks.") for name in state
    )


def reads(stored: Stored, config_file: Path | None, heads: int | None = None) -> Checkpoint:
    """The book's model; its head count comes from the configuration file or is given.

    Raises:
        CheckpointError: tensors or configuration do not fit, or nothing says the head count.
    """
    given = {} if config_file is None else _read_book_config(config_file)
    values, merged = merge_low_rank(stored, given)
    state, notes = without_buffers(values, LAYOUT)
    form = Form(
        qkv_bias=any(".att.W_" in name and name.endswith(".bias") for name in state),
        tied_head=share_storage(state.get("out_head.weight"), state.get("tok_emb.weight")),
    )
    if form.tied_head:
        del state["out_head.weight"]
    _refuse_classifier(stored, state)
    sizes = ("vocab_size", "context_length", "emb_dim", "n_layers", "qkv_bias")
    declared = Declared(source=str(config_file), values=given, names={name: name for name in sizes})
    fitted = fit(stored, state, LAYOUT, form, declared)
    n_heads = head_count(
        stored.path,
        fitted.sizes["emb_dim"],
        given.get("n_heads"),
        heads,
        where="the configuration",
        how="the book's configuration as JSON with --config, or ",
    )
    config = to_config(stored, fitted, n_heads=n_heads, drop_rate=given.get("drop_rate", 0.0), tied_head=form.tied_head)
    return Checkpoint(
        family="from-scratch",
        config=config,
        tensors=fitted.in_order(config),
        folder=stored.folder,
        files=stored.files if config_file is None else (*stored.files, config_file),
        notes=(*stored.notes, *merged, *notes),
    )


def _refuse_classifier(stored: Stored, state: Mapping[str, Any]) -> None:
    """Refuses a model of chapter 6: it has the same body, and scores classes."""
    head, tokens = state.get("out_head.weight"), state.get("tok_emb.weight")
    if isinstance(head, Tensor) and isinstance(tokens, Tensor) and head.dim() == tokens.dim() == 2:
        scores, known = len(head), len(tokens)
        if head.shape[1] == tokens.shape[1] and 16 * scores < known:
            raise CheckpointError(
                f"{stored.path} is a classifier with the book's names: its out_head gives {scores} scores, and "
                "there are "
                f"{known} tokens; export it as a module: gpt-export onnx package.module:factory --weights {stored.path}"
            )


def _read_book_config(config_file: Path) -> dict[str, Any]:
    given = read_json_object(config_file)
    if unknown := sorted(given.keys() - GPT_CONFIG_124M.keys() - {LORA_ALPHA}):
        raise CheckpointError(
            f"{config_file} has keys that the book's configuration does not: {some(unknown)};"
            f" known are {', '.join(GPT_CONFIG_124M)}"
        )
    if "n_heads" not in given:
        raise CheckpointError(f"{config_file} lacks n_heads, which the weights do not tell; add it")
    return given


FAMILY = register(Family(name="from-scratch", landmark=LANDMARK, recognises=recognises, reads=reads))
