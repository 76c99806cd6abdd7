"""GPT-2 as Hugging Face's transformers saves it: a folder with config.json and whole or sharded weights.

Source: `GPT2Config` and `modeling_gpt2.py` of transformers 5, https://github.com/huggingface/transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt_export_models.checkpoints.advice import asks_for_code
from gpt_export_models.checkpoints.checkpoint import Checkpoint
from gpt_export_models.checkpoints.contract import Form
from gpt_export_models.checkpoints.fit import Declared, are_equal, fit, share_storage, to_config, without_buffers
from gpt_export_models.checkpoints.layout import GPT2_LANDMARK, Layout, gpt2_names, is_linear
from gpt_export_models.checkpoints.registry import Family, register
from gpt_export_models.checkpoints.stored import Stored
from gpt_export_models.config import Activation
from gpt_export_models.errors import CheckpointError, UnimplementedError
from gpt_export_models.json_files import read_json_object
from gpt_export_models.problems import some

ACTIVATIONS: Mapping[str, Activation] = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",  # sqrt(2 / pi) cut to ten digits, which float32 does not see
    "gelu_accurate": "gelu_tanh",
    "gelu": "gelu_erf",
    "gelu_python": "gelu_erf",
}
SIZES = {
    "vocab_size": "vocab_size",
    "n_positions": "context_length",
    "n_embd": "emb_dim",
    "n_layer": "n_layers",
    "n_inner": "hidden_dim",
}
REQUIRED = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
SYNONYMS = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}
ALONE_NOTES = ("there is no config.json; everything but the head count was taken as in GPT-2's",)
MUST_BE: Mapping[str, tuple[Any, ...]] = {
    "model_type": ("gpt2",),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False, None),
    "is_encoder_decoder": (False, None),
    "quantization_config": (None,),
    "pruned_heads": (None, {}),
}
"""Settings that change the numbers, and the values under which they do not; absent is such a value."""


MATRICES = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
"""The layers that are `Conv1D`."""


def recognises(state: Mapping[str, Any], beside: Mapping[str, Any]) -> bool:
    """Whether the layers are `Conv1D`, as Hugging Face kept them from OpenAI's code; or nothing says otherwise."""
    return not is_linear(state, beside)


def reads(stored: Stored, config_file: Path | None, heads: int | None = None) -> Checkpoint:
    """GPT-2 by the config.json beside its weights, or by the one that was given.

    Raises:
        CheckpointError: the configuration is lacking or asks for what is not implemented, or tensors do not fit it.
    """
    where = stored.folder / "config.json" if config_file is None else config_file
    alone = config_file is None and not where.exists()
    if alone and heads is None:
        raise CheckpointError(
            f"{stored.path} is a GPT-2 of Hugging Face (layers of Conv1D) without a configuration, there is no {where};"
            " put its config.json beside it, pass it with --config, or pass its head count with --heads"
        )
    values: dict[str, Any] = {"n_head": heads} if alone else _read_config(where)
    if heads not in (None, values["n_head"]):
        raise CheckpointError(f"n_head is {values['n_head']} in {where} and {heads} in --heads; leave --heads out")
    prefix = "transformer." if any(name.startswith("transformer.") for name in stored.values) else ""
    layout = _layout(prefix)
    state, notes = without_buffers(stored.values, layout)
    tied, tie_notes = _tie_head(state, prefix + "wte.weight", tie=values.get("tie_word_embeddings", True) is not False)
    form = Form(qkv_bias=True, tied_head=tied)
    fitted = fit(stored, state, layout, form, Declared(source=where.name, values=values, names=SIZES))
    config = to_config(
        stored,
        fitted,
        n_heads=values["n_head"],
        drop_rate=0.0,  # GPT-2 has three rates, and none of them at inference
        activation=ACTIVATIONS[values.get("activation_function", "gelu_new")],
        norm_eps=values.get("layer_norm_epsilon", 1e-5),
        tied_head=tied,
    )
    return Checkpoint(
        family="huggingface",
        config=config,
        tensors=fitted.in_order(config),
        folder=stored.folder,
        files=stored.files if alone else (*stored.files, where),
        notes=(*stored.notes, *notes, *tie_notes, *(ALONE_NOTES if alone else _config_notes(values))),
    )


def _layout(prefix: str) -> Layout:
    return Layout(
        blocks=f"{prefix}h",
        names=gpt2_names(prefix),
        transposed=frozenset(f"{prefix}h.{{}}.{matrix}.weight" for matrix in MATRICES),  # Conv1D
        buffers=(f"{prefix}h.{{}}.attn.bias", f"{prefix}h.{{}}.attn.masked_bias"),
    )


def _read_config(where: Path) -> dict[str, Any]:
    given = read_json_object(where)
    values = {SYNONYMS[name]: value for name, value in given.items() if name in SYNONYMS} | given
    wrong = [
        f"{name} {values[name]!r}" for name, fine in MUST_BE.items() if name in values and values[name] not in fine
    ]
    if asks_for_code(values):
        wrong.append("code of its own (auto_map)")
    if wrong:
        raise UnimplementedError(f"{where} asks for what is not implemented: {some(wrong)}; export a plain GPT-2")
    if missing := [name for name in REQUIRED if name not in values]:
        raise CheckpointError(f"{where} lacks {some(missing)}; it needs {', '.join(REQUIRED)}")
    activation = values.get("activation_function", "gelu_new")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise UnimplementedError(
            f"{where} has activation_function {some([repr(activation)])}, which is not implemented;"
            f" known are {', '.join(ACTIVATIONS)}"
        )
    if values.get("n_inner") is None and isinstance(values["n_embd"], int):
        values["n_inner"] = 4 * values["n_embd"]
    return values


def _tie_head(state: dict[str, Any], embedding: str, *, tie: bool) -> tuple[bool, tuple[str, ...]]:
    """Whether head and embedding are one, as transformers 5 decides it; if so, the head leaves `state`."""
    if "lm_head.weight" not in state:
        return tie, ()
    if embedding not in state and tie:  # safetensors keeps one name of shared tensors, whichever sorts first
        state[embedding] = state.pop("lm_head.weight")
        return True, ()
    head, tokens = state["lm_head.weight"], state.get(embedding)
    if share_storage(head, tokens) or (tie and are_equal(head, tokens)):
        del state["lm_head.weight"]
        return True, ()
    note = "the configuration ties head and embedding but the weights differ; both were taken as they are"
    return False, (note,) if tie else ()


def _config_notes(values: Mapping[str, Any]) -> tuple[str, ...]:
    notes = []
    if "model_type" not in values:
        notes.append("the configuration has no model_type; it was taken as gpt2, whose names the weights have")
    if values.get("reorder_and_upcast_attn"):
        notes.append("reorder_and_upcast_attn was ignored: it orders float operations and leaves the function as it is")
    return tuple(notes)


def _is_conv1d(name: str) -> bool:
    return name.removesuffix(".weight").endswith(MATRICES)


FAMILY = register(
    Family(
        name="huggingface",
        landmark=GPT2_LANDMARK,
        recognises=recognises,
        reads=reads,
        holds_transposed=_is_conv1d,
        tied={"lm_head.weight": "wte.weight"},
    )
)
