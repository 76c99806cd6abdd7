"""State dicts of the GPTModel in "LLMs from scratch" by Sebastian Raschka (chapters 4 to 7)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt_export_models.checkpoints.checkpoint import Checkpoint
from gpt_export_models.checkpoints.contract import CANONICAL, Form
from gpt_export_models.checkpoints.fit import (
    Declared,
    fit,
    share_storage,
    to_config,
    without_buffers,
    without_compile_prefix,
)
from gpt_export_models.checkpoints.layout import Layout
from gpt_export_models.checkpoints.registry import Family, register
from gpt_export_models.checkpoints.stored import Stored
from gpt_export_models.config import GPT_CONFIG_124M
from gpt_export_models.errors import CheckpointError
from gpt_export_models.json_files import read_json_object
from gpt_export_models.problems import some

HEAD_SIZE = 64
"""The width of a head in every GPT-2 and in every configuration of the book."""

LAYOUT = Layout(
    blocks="trf_blocks",
    names={name: (name,) for name in CANONICAL},
    buffers=("trf_blocks.{}.att.mask",),
)


def recognises(values: Mapping[str, Any]) -> bool:
    """Whether the values are a state dict with the book's names, or hold one beside an optimizer's."""
    return any(name.startswith(("tok_emb.", "trf_blocks.")) for name in _state(values))


def reads(stored: Stored, config_file: Path | None) -> Checkpoint:
    """The book's model; its head count comes from the configuration file or is assumed.

    Raises:
        CheckpointError: tensors or configuration do not fit, or the head count cannot be assumed.
    """
    state, notes = without_buffers(_state(stored.values), LAYOUT)
    given = {} if config_file is None else _read_book_config(config_file)
    form = Form(
        qkv_bias=any(".att.W_" in name and name.endswith(".bias") for name in state),
        tied_head=share_storage(state.get("out_head.weight"), state.get("tok_emb.weight")),
    )
    if form.tied_head:
        del state["out_head.weight"]
    sizes = ("vocab_size", "context_length", "emb_dim", "n_layers", "qkv_bias")
    declared = Declared(source=str(config_file), values=given, names={name: name for name in sizes})
    fitted = fit(stored, state, LAYOUT, form, declared)
    if config_file is None:
        n_heads = _assume_heads(stored, fitted.sizes["emb_dim"])
        notes += (f"the file does not say how many heads there are; {n_heads} heads of size {HEAD_SIZE} were assumed",)
    else:
        n_heads = given["n_heads"]
    config = to_config(stored, fitted, n_heads=n_heads, drop_rate=given.get("drop_rate", 0.0), tied_head=form.tied_head)
    return Checkpoint(
        family="from-scratch",
        config=config,
        tensors=fitted.in_order(config),
        folder=stored.folder,
        files=stored.files if config_file is None else (*stored.files, config_file),
        notes=stored.notes + notes,
    )


def _state(values: Mapping[str, Any]) -> dict[str, Any]:
    inner = values.get("model_state_dict")
    return without_compile_prefix(inner if isinstance(inner, Mapping) else values)


def _read_book_config(config_file: Path) -> dict[str, Any]:
    given = read_json_object(config_file)
    if unknown := sorted(given.keys() - GPT_CONFIG_124M.keys()):
        raise CheckpointError(
            f"{config_file} has keys that the book's configuration does not: {some(unknown)};"
            f" known are {', '.join(GPT_CONFIG_124M)}"
        )
    if "n_heads" not in given:
        raise CheckpointError(f"{config_file} lacks n_heads, which the weights do not tell; add it")
    return given


def _assume_heads(stored: Stored, emb_dim: int) -> int:
    if emb_dim % HEAD_SIZE:
        raise CheckpointError(
            f"{stored.path} does not say how many heads there are, and its width of {emb_dim} does not divide into"
            f" the usual heads of size {HEAD_SIZE}; pass the book's configuration as a JSON file with --config"
        )
    return emb_dim // HEAD_SIZE


FAMILY = register(Family(name="from-scratch", recognises=recognises, reads=reads))
