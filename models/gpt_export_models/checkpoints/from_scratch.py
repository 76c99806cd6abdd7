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
from gpt_export_models.errors import CheckpointError, UnstatedError
from gpt_export_models.json_files import read_json_object
from gpt_export_models.problems import some

LAYOUT = Layout(
    blocks="trf_blocks",
    names={name: (name,) for name in CANONICAL},
    buffers=("trf_blocks.{}.att.mask",),
)


def recognises(values: Mapping[str, Any]) -> bool:
    """Whether the values are a state dict with the book's names, or hold one beside an optimizer's."""
    return any(name.startswith(("tok_emb.", "trf_blocks.")) for name in _state(values))


def reads(stored: Stored, config_file: Path | None, heads: int | None = None) -> Checkpoint:
    """The book's model; its head count comes from the configuration file or is given.

    Raises:
        CheckpointError: tensors or configuration do not fit, or nothing says the head count.
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
    n_heads = _heads(stored, fitted.sizes["emb_dim"], given, heads)
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


def _heads(stored: Stored, emb_dim: int, given: Mapping[str, Any], heads: int | None) -> int:
    """The head count that somebody stated. Weights of one width fit any that divides it, and make other models."""
    stated = given.get("n_heads")
    if heads is not None and stated is not None and heads != stated:
        raise CheckpointError(f"n_heads is {stated} in the configuration and {heads} in --heads; leave one of them out")
    count: int | None = stated if heads is None else heads
    fitting = ", ".join(str(n) for n in range(1, emb_dim + 1) if emb_dim % n == 0)
    if count is None:
        raise UnstatedError(
            f"{stored.path} does not say how many heads there are, and every number of heads is another model; pass "
            f"the book's configuration as JSON with --config, or --heads with one of {fitting}"
        )
    if heads is not None and (heads < 1 or emb_dim % heads):
        raise UnstatedError(
            f"{stored.path} has a width of {emb_dim}, which {heads} heads do not divide; pass --heads with one of "
            f"{fitting}"
        )
    return count


FAMILY = register(Family(name="from-scratch", recognises=recognises, reads=reads))
