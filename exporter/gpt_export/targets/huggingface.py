"""The files that Hugging Face's libraries read beside a model, as Optimum's ORTModelForCausalLM needs them.

Source: transformers' `GPT2Config` and `GenerationConfig`, optimum-onnx's `modeling_decoder.py`. All of config.json's
numbers are those of the graph. GPT2Config has no words for a GPT without biases: nobody who loads the graph asks, and a
GPT-2 with biases of zero is the same function.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpt_export_models.config import Activation, GPTConfig

from gpt_export.artifact.manifest import dump
from gpt_export.runtime.signature import LayerCache
from gpt_export.targets import transformers_js
from gpt_export.targets.facts import GENERATION, Facts
from gpt_export.targets.tokenizer_files import tokenizer_files

_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
"""What configurations call the number of query heads."""
ACTIVATIONS: Mapping[Activation, str] = {"gelu_tanh": "gelu_new", "gelu_erf": "gelu"}


def files(facts: Facts) -> dict[str, bytes]:
    """`config.json`, the tokenizer's files, and for graphs with a cache `generation_config.json`.

    Nothing for the skeleton, for modules without a cache, and for those whose layers are unlike.
    """
    if facts.config is not None:
        config = _config(facts, facts.config)
    elif facts.decoder is not None and not _shares_keys(facts):
        config = _decoder_config(facts, facts.decoder)
    else:
        return {}
    made = {"config.json": config, **tokenizer_files(facts)}
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


def query_heads(facts: Facts, layer: LayerCache) -> int:
    """How many heads of queries a layer has, as far as the source says it; else as many as of keys and values."""
    stated = (facts.configuration.get(name) for name in _HEADS)
    return next((each for each in stated if isinstance(each, int) and each > 0), layer.n_heads)


def _shares_keys(facts: Facts) -> bool:
    """Whether the source states more layers than the graph caches, which its configuration has no words for."""
    stated = facts.configuration.get("num_hidden_layers", facts.configuration.get("n_layer"))
    return isinstance(stated, int) and stated > facts.n_layers


def _decoder_config(facts: Facts, layer: LayerCache) -> bytes:
    """The configuration of a decoder of any architecture: the source's own, with the numbers that the graph has.

    A module that is none of transformers is called a Llama: by that name its libraries take grouped heads of a stated
    width, layer after layer, and ask for nothing else of what computes them.
    """
    own = facts.configuration if isinstance(facts.configuration.get("model_type"), str) else {}
    heads = query_heads(facts, layer)
    numbers: dict[str, Any] = {
        "bos_token_id": facts.start_id,
        "eos_token_id": facts.end_id,
        "head_dim": layer.key_dim,
        "max_position_embeddings": facts.context_length,
        "num_attention_heads": heads,
        "num_hidden_layers": facts.n_layers,
        "num_key_value_heads": layer.n_heads,
        "use_cache": True,
        "vocab_size": facts.vocab_size,
        "transformers.js_config": transformers_js.settings(facts),
    }
    if not own:
        numbers |= {"architectures": ["LlamaForCausalLM"], "hidden_size": heads * layer.key_dim, "model_type": "llama"}
    stated = {name: value for name, value in numbers.items() if value not in (None, {})}
    return dump({**own, **stated}).encode()


def _generation(facts: Facts) -> bytes:
    ends = list(facts.end_ids)
    return dump(
        {
            "bos_token_id": facts.start_id,
            "eos_token_id": ends[0] if len(ends) == 1 else ends,
            "pad_token_id": facts.end_id,
        }
    ).encode()
