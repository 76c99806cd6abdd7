"""GPT-2's names over `Linear` layers: Andrej Karpathy's nanoGPT, build-nanogpt and minGPT, and what was made of them.

https://github.com/karpathy/nanoGPT and its siblings. The weights do not tell the three from each other, nor how many
heads there are: that is in the settings beside them, or the user says it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt_export_models.checkpoints.checkpoint import Checkpoint
from gpt_export_models.checkpoints.contract import Form
from gpt_export_models.checkpoints.fit import Declared, are_equal, fit, to_config, without_buffers
from gpt_export_models.checkpoints.huggingface import ACTIVATIONS
from gpt_export_models.checkpoints.layout import GPT2_LANDMARK, Layout, gpt2_names, is_linear
from gpt_export_models.checkpoints.registry import Family, register
from gpt_export_models.checkpoints.statements import head_count, head_count_in, settings_beside
from gpt_export_models.checkpoints.stored import Stored
from gpt_export_models.config import Activation
from gpt_export_models.errors import CheckpointError
from gpt_export_models.json_files import read_json_object
from gpt_export_models.problems import some

SIZES = {
    "n_layer": "n_layers",
    "n_embd": "emb_dim",
    "block_size": "context_length",
    "vocab_size": "vocab_size",
}
REQUIRED = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size")
KNOWN = (*REQUIRED, "bias", "dropout")
ARGS = "model_args"


def recognises(state: Mapping[str, Any], beside: Mapping[str, Any]) -> bool:
    """Whether the layers are `Linear`, and query, key and value one of them."""
    return is_linear(state, beside) and not any(name.endswith(".attn.c_q.weight") for name in state)


def reads(stored: Stored, config_file: Path | None, heads: int | None = None) -> Checkpoint:
    """The model, by the settings beside its weights: nanoGPT's `model_args`, or any that name a head count.

    Raises:
        CheckpointError: settings are unknown or contradict what was given, or tensors do not fit.
        UnstatedError: nothing says the head count.
    """
    where, said = _settings(stored, config_file)
    prefix = "transformer." if any(name.startswith("transformer.") for name in stored.values) else ""
    layout = Layout(
        blocks=f"{prefix}h",
        names=gpt2_names(prefix),
        buffers=(f"{prefix}h.{{}}.attn.bias", f"{prefix}h.{{}}.attn.masked_bias"),  # the causal mask
    )
    state, notes = without_buffers(stored.values, layout)
    tied = _drop_tied_head(stored, state, f"{prefix}wte.weight", must=where == ARGS)
    form = _form(state, said if where == ARGS else {}, tied)
    fitted = fit(stored, state, layout, form, Declared(source=where, values=said, names=SIZES))
    activation, told = _activation(where, said, form)
    how = 'JSON with {"n_head": ...} with --config, or '
    config = to_config(
        stored,
        fitted,
        n_heads=head_count(stored.path, fitted.sizes["emb_dim"], head_count_in(said), heads, where=where, how=how),
        drop_rate=said.get("dropout", 0.0) if where == ARGS else 0.0,
        linear_bias=form.linear_bias,
        norm_bias=form.norm_bias,
        tied_head=tied,
        activation=activation,
    )
    return Checkpoint(
        family="nanogpt",
        config=config,
        tensors=fitted.in_order(config),
        folder=stored.folder,
        files=stored.files if config_file is None else (*stored.files, config_file),
        notes=(*stored.notes, *notes, *told),
    )


def _settings(stored: Stored, config_file: Path | None) -> tuple[str, Mapping[str, Any]]:
    """What to call the settings, and those."""
    args = stored.beside.get(ARGS)
    if isinstance(args, Mapping):
        if config_file is not None:
            raise CheckpointError(f"{stored.path} carries its own configuration ({ARGS}); leave {config_file} out")
        return ARGS, _checked(stored, args)
    if config_file is not None:
        return str(config_file), read_json_object(config_file)
    return settings_beside(stored)


def _checked(stored: Stored, args: Mapping[str, Any]) -> Mapping[str, Any]:
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


def _form(state: Mapping[str, Any], args: Mapping[str, Any], tied: bool) -> Form:
    """Which parameters there are: as nanoGPT's `bias` says for all of them, or as they are there."""
    if args:
        bias = args.get("bias", True)
        return Form(qkv_bias=bias, linear_bias=bias, norm_bias=bias, tied_head=tied)
    return Form(
        qkv_bias=any(name.endswith(".attn.c_attn.bias") for name in state),
        linear_bias=any(name.endswith(".mlp.c_fc.bias") for name in state),
        norm_bias=any(name.endswith(".ln_1.bias") for name in state),
        tied_head=tied,
    )


def _drop_tied_head(stored: Stored, state: dict[str, Any], embedding: str, *, must: bool) -> bool:
    """Whether head and embedding are one; then the head leaves `state`."""
    head, tokens = state.get("lm_head.weight"), state.get(embedding)
    if head is None or tokens is None:
        return head is None or must  # a missing embedding is reported with whatever else is missing
    if are_equal(head, tokens):
        del state["lm_head.weight"]
        return True
    if must:
        raise CheckpointError(
            f"{stored.path} has an lm_head.weight that differs from {embedding}, which nanoGPT ties;"
            " a changed nanoGPT is not supported"
        )
    return False


def _activation(where: str, said: Mapping[str, Any], form: Form) -> tuple[Activation, tuple[str, ...]]:
    """Which GELU it has, and how that was decided."""
    stated = said.get("activation_function")
    if isinstance(stated, str) and stated in ACTIVATIONS:
        return ACTIVATIONS[stated], ()
    # model.py had its own tanh GELU until June 2023; `bias` came into model_args in January 2023
    if where == ARGS and "bias" not in said:
        note = "model_args has no bias, so this is a nanoGPT of before 2023: biases and the tanh GELU were taken"
        return "gelu_tanh", (note,)
    if "bias" in said or not form.norm_bias:
        note = "the file does not say which GELU it has; the exact one was taken, as in nanoGPT since June 2023"
        return "gelu_erf", (note,)
    return "gelu_tanh", (
        "the file does not say which GELU it has; the tanh one was taken, as in GPT-2, minGPT and build-nanogpt: state "
        'the exact one, as in nanoGPT since June 2023, by {"n_head": ..., "activation_function": "gelu"} with --config',
    )


FAMILY = register(
    Family(
        name="nanogpt",
        landmark=GPT2_LANDMARK,
        recognises=recognises,
        reads=reads,
        tied={"lm_head.weight": "wte.weight"},
    )
)
