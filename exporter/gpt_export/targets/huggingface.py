"""The files that Hugging Face's libraries read beside a model, as Optimum's ORTModelForCausalLM needs them.

Source: transformers' `GPT2Config` and `GenerationConfig`, optimum-onnx's `modeling_decoder.py`. All of config.json's
numbers are those of the graph. GPT2Config has no words for a GPT without biases: nobody who loads the graph asks, and a
GPT-2 with biases of zero is the same function.
"""

from __future__ import annotations

from collections.abc import Mapping

from gpt_export_models.config import Activation, GPTConfig

from gpt_export.artifact.manifest import dump
from gpt_export.targets import transformers_js
from gpt_export.targets.facts import GENERATION, Facts
from gpt_export.targets.tokenizer_files import tokenizer_files

ACTIVATIONS: Mapping[Activation, str] = {"gelu_tanh": "gelu_new", "gelu_erf": "gelu"}


def files(facts: Facts) -> dict[str, bytes]:
    """`config.json`, the tokenizer's files, and for graphs with a cache `generation_config.json`.

    Nothing for the skeleton and for modules, whose architecture these libraries do not know.
    """
    if facts.config is None:
        return {}
    made = {"config.json": _config(facts, facts.config), **tokenizer_files(facts)}
    if facts.cached and facts.end_id is not None and GENERATION not in facts.carried:
        made[GENERATION] = _generation(facts)
    return made


def _config(facts: Facts, config: GPTConfig) -> bytes:
    values = {
        "activation_function": ACTIVATIONS[config.activation],
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": config.drop_rate,
        "bos_token_id": facts.start_id,
        "embd_pdrop": config.drop_rate,
        "eos_token_id": facts.end_id,
        "layer_norm_epsilon": config.norm_eps,
        "model_type": "gpt2",
        "n_ctx": config.context_length,  # no longer read by transformers, still by others
        "n_embd": config.emb_dim,
        "n_head": config.n_heads,
        "n_inner": None if config.feed_forward_dim == 4 * config.emb_dim else config.feed_forward_dim,
        "n_layer": config.n_layers,
        "n_positions": config.context_length,
        "resid_pdrop": config.drop_rate,
        "scale_attn_weights": True,
        "tie_word_embeddings": config.tied_head,
        "transformers.js_config": transformers_js.settings(facts),
        "use_cache": facts.cached,
        "vocab_size": config.vocab_size,
    }
    return dump({name: value for name, value in values.items() if value != {}}).encode()


def _generation(facts: Facts) -> bytes:
    ends = list(facts.end_ids)
    return dump(
        {
            "bos_token_id": facts.start_id,
            "eos_token_id": ends[0] if len(ends) == 1 else ends,
            "pad_token_id": facts.end_id,
        }
    ).encode()
