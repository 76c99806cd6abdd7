"""`ckpt.pt` as train.py of Andrej Karpathy's nanoGPT writes it: https://github.com/karpathy/nanoGPT."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt_export_models.checkpoints.checkpoint import Checkpoint
from gpt_export_models.checkpoints.contract import Form
from gpt_export_models.checkpoints.fit import (
    Declared,
    are_equal,
    fit,
    to_config,
    without_buffers,
    without_compile_prefix,
)
from gpt_export_models.checkpoints.layout import Layout, gpt2_names
from gpt_export_models.checkpoints.registry import Family, register
from gpt_export_models.checkpoints.stored import Stored
from gpt_export_models.errors import CheckpointError
from gpt_export_models.problems import some

LAYOUT = Layout(
    blocks="transformer.h",
    names=gpt2_names("transformer."),
    buffers=("transformer.h.{}.attn.bias",),  # the causal mask, where torch had no fused attention
)

SIZES = {
    "n_layer": "n_layers",
    "n_embd": "emb_dim",
    "block_size": "context_length",
    "vocab_size": "vocab_size",
}
REQUIRED = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size")
KNOWN = (*REQUIRED, "bias", "dropout")


def recognises(values: Mapping[str, Any]) -> bool:
    """Whether the values are a training state around a model with nanoGPT's names."""
    return any(name.startswith("transformer.") for name in _state(values))


def reads(stored: Stored, config_file: Path | None, heads: int | None = None) -> Checkpoint:
    """nanoGPT's model, by the `model_args` beside its weights.

    Raises:
        CheckpointError: a configuration file was given, `model_args` is lacking or unknown, or tensors do not fit.
    """
    if config_file is not None:
        raise CheckpointError(f"{stored.path} carries its own configuration (model_args); leave {config_file} out")
    if heads is not None:
        raise CheckpointError(f"{stored.path} says its head count (model_args); leave --heads out")
    args = _model_args(stored)
    state, notes = without_buffers(_state(stored.values), LAYOUT)
    _drop_tied_head(stored, state)
    bias = args.get("bias", True)
    fitted = fit(
        stored,
        state,
        LAYOUT,
        Form(qkv_bias=bias, linear_bias=bias, norm_bias=bias, tied_head=True),
        Declared(source="model_args", values=args, names=SIZES),
    )
    config = to_config(
        stored,
        fitted,
        n_heads=args["n_head"],
        drop_rate=args.get("dropout", 0.0),
        linear_bias=bias,
        norm_bias=bias,
        tied_head=True,
        activation="gelu_erf" if "bias" in args else "gelu_tanh",
    )
    return Checkpoint(
        family="nanogpt",
        config=config,
        tensors=fitted.in_order(config),
        folder=stored.folder,
        files=stored.files,
        notes=(*stored.notes, *notes, _activation_note(args)),
    )


def _state(values: Mapping[str, Any]) -> dict[str, Any]:
    inner = values.get("model")
    return without_compile_prefix(inner) if isinstance(inner, Mapping) else {}


def _model_args(stored: Stored) -> Mapping[str, Any]:
    args = stored.values.get("model_args")
    if not isinstance(args, Mapping):
        raise CheckpointError(
            f"{stored.path} holds a nanoGPT model without its model_args; pass the ckpt.pt that train.py wrote"
        )
    if missing := [name for name in REQUIRED if name not in args]:
        raise CheckpointError(f"{stored.path} has model_args without {some(missing)}; they need {', '.join(REQUIRED)}")
    if unknown := [name for name in args if name not in KNOWN]:
        raise CheckpointError(
            f"{stored.path} has model_args that nanoGPT does not: {some(unknown)}; a changed nanoGPT is not supported,"
            f" known are {', '.join(KNOWN)}"
        )
    if not isinstance(args.get("bias", True), bool):
        raise CheckpointError(
            f"{stored.path} has model_args with bias {some([repr(args['bias'])])}; it must be True or False"
        )
    return args


def _drop_tied_head(stored: Stored, state: dict[str, Any]) -> None:
    head, embedding = state.get("lm_head.weight"), state.get("transformer.wte.weight")
    if head is None or embedding is None:
        return  # a missing embedding is reported with whatever else is missing; the head is the embedding
    if not are_equal(head, embedding):
        raise CheckpointError(
            f"{stored.path} has an lm_head.weight that differs from transformer.wte.weight, which nanoGPT ties;"
            " a changed nanoGPT is not supported"
        )
    del state["lm_head.weight"]


def _activation_note(args: Mapping[str, Any]) -> str:
    # model.py had its own tanh GELU until June 2023; `bias` came into model_args in January 2023
    if "bias" in args:
        return "the file does not say which GELU it has; the exact one was taken, as in nanoGPT since June 2023"
    return "model_args has no bias, so this is a nanoGPT of before 2023: biases and the tanh GELU were taken"


FAMILY = register(Family(name="nanogpt", recognises=recognises, reads=reads))
