"""Causal decoders of transformers, a family each, as tiny as their configurations allow, with random weights spread."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from tests.zoo.animal import CONTEXT, VOCAB
from tests.zoo.spread import spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One `model_type` of transformers, and the settings that make it small."""

    name: str
    model_type: str
    settings: dict[str, Any] = field(repr=False)
    cached: bool = True
    """Whether a cache of keys and values can be derived from its plain graph."""
    because: str = ""
    """What a refusal must name."""

    def make(self) -> nn.Module:
        """Its `AutoModelForCausalLM` in eval mode, float32, with eager attention and experts that are written out."""
        from transformers import AutoConfig, AutoModelForCausalLM

        config = AutoConfig.for_model(self.model_type, **self.settings)
        config.use_cache = False
        config._attn_implementation = "eager"
        config._experts_implementation = "eager"
        torch.manual_seed(0)  # some draw buffers; parameters are drawn by name below
        return spread(AutoModelForCausalLM.from_config(config, dtype=torch.float32))

    def __str__(self) -> str:
        return self.name


COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
ALL_HEADS = {**COMMON, "num_key_value_heads": 4}
GPT2: dict[str, Any] = {
    "vocab_size": VOCAB,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": CONTEXT,
    "n_inner": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WINDOWED = ["sliding_attention", "full_attention"]
EXPERTS = {**COMMON, "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
DEEPSEEK = {
    **COMMON,
    "moe_intermediate_size": 24,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 12,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
}
DEEPSEEK.pop("head_dim")
FALCON = {setting: value for setting, value in COMMON.items() if setting != "head_dim"}


def _family(name: str, settings: dict[str, Any], model_type: str = "", **facts: Any) -> Family:
    return Family(name=name, model_type=model_type or name, settings=settings, **facts)


FAMILIES: tuple[Family, ...] = (
    _family("llama", COMMON),
    _family("llama_tied", {**COMMON, "tie_word_embeddings": True}, "llama"),
    _family("mistral", {**COMMON, "sliding_window": 12}),
    _family("ministral", {**COMMON, "sliding_window": 12, "layer_types": WINDOWED}),
    _family("mixtral", {**EXPERTS, "sliding_window": None}),
    _family("qwen2", COMMON),
    _family("qwen2_moe", {**EXPERTS, "shared_expert_intermediate_size": 32, "decoder_sparse_step": 1}),
    _family("qwen3", COMMON),
    _family("qwen3_moe", {**EXPERTS, "decoder_sparse_step": 1}),
    _family("gemma", COMMON),
    _family("gemma2", {**COMMON, "sliding_window": 12, "query_pre_attn_scalar": 8, "layer_types": WINDOWED}),
    _family("gemma3_text", {**COMMON, "sliding_window": 12, "query_pre_attn_scalar": 8, "layer_types": WINDOWED}),
    _family("vaultgemma", {**COMMON, "sliding_window": 12, "query_pre_attn_scalar": 8, "layer_types": WINDOWED}),
    _family("phi", {**ALL_HEADS, "partial_rotary_factor": 0.5}),
    _family("phi3", {**COMMON, "original_max_position_embeddings": CONTEXT}),
    _family("phimoe", EXPERTS),
    _family("gpt2", GPT2),
    _family(
        "gpt_neo",
        {**COMMON, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 12},
    ),
    _family("gpt_neox", {**COMMON, "rotary_pct": 0.25}),
    _family("gpt_neox_sequential", {**COMMON, "rotary_pct": 0.5, "use_parallel_residual": False}, "gpt_neox"),
    _family("gpt_neox_japanese", {**COMMON, "intermediate_multiple_size": 2}),
    _family("gptj", {**GPT2, "rotary_dim": 4}),
    _family("codegen", {**GPT2, "rotary_dim": 4}),
    _family("gpt_bigcode", {**GPT2, "multi_query": True}),
    _family("openai-gpt", {**GPT2, "n_positions": CONTEXT}),
    _family("mpt", {"vocab_size": VOCAB, "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": CONTEXT}),
    _family("opt", {**COMMON, "ffn_dim": 64, "word_embed_proj_dim": 32, "pad_token_id": 1}),
    _family("starcoder2", {**COMMON, "sliding_window": None}),
    _family("falcon_rope", {**FALCON, "alibi": False, "new_decoder_architecture": True, "num_kv_heads": 2}, "falcon"),
    _family("falcon_mqa", {**FALCON, "alibi": False, "new_decoder_architecture": False, "multi_query": True}, "falcon"),
    _family(
        "falcon_alibi",
        {**FALCON, "alibi": True, "new_decoder_architecture": False, "multi_query": False, "parallel_attn": False},
        "falcon",
    ),
    _family("bloom", {"vocab_size": VOCAB, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    _family("cohere", {**COMMON, "logit_scale": 1.0, "use_qk_norm": True}),
    _family("cohere2", {**COMMON, "logit_scale": 1.0, "sliding_window": 12, "layer_types": WINDOWED}),
    _family("glm", COMMON),
    _family("glm4", COMMON),
    _family("glm4_moe", {**DEEPSEEK, "head_dim": 8, "num_key_value_heads": 2}),
    _family(
        "granite",
        {
            **COMMON,
            "residual_multiplier": 0.22,
            "logits_scaling": 2.0,
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.3,
        },
    ),
    _family("granitemoe", EXPERTS),
    _family("stablelm", {**COMMON, "partial_rotary_factor": 0.25}),
    _family("olmo", {**COMMON, "clip_qkv": 4.0}),
    _family("olmo2", COMMON),
    _family("olmo3", {**COMMON, "sliding_window": 12, "layer_types": WINDOWED}),
    _family("olmoe", EXPERTS),
    _family("nemotron", COMMON),
    _family("persimmon", ALL_HEADS),
    _family("biogpt", {**ALL_HEADS, "pad_token_id": 1}),
    _family(
        "xglm",
        {
            "vocab_size": VOCAB,
            "d_model": 32,
            "ffn_dim": 64,
            "num_layers": 2,
            "attention_heads": 4,
            "max_position_embeddings": CONTEXT,
            "pad_token_id": 1,
        },
    ),
    _family("ctrl", {**GPT2, "dff": 64}),
    _family("helium", COMMON),
    _family("smollm3", {**COMMON, "no_rope_layers": [1, 0]}),
    _family("exaone4", {**COMMON, "sliding_window": 12, "layer_types": WINDOWED}),
    _family("ernie4_5", COMMON),
    _family(
        "ernie4_5_moe",
        {**EXPERTS, "moe_num_experts": 4, "moe_k": 2, "moe_num_shared_experts": 1, "moe_layer_start_index": 1},
    ),
    _family("seed_oss", COMMON),
    _family("arcee", COMMON),
    _family("apertus", COMMON),
    _family("hunyuan_v1_dense", COMMON),
    _family("cwm", {**COMMON, "sliding_window": 12, "layer_types": WINDOWED}),
    _family("deepseek_v2", DEEPSEEK),
    _family("deepseek_v3", DEEPSEEK),
    _family("minicpm3", DEEPSEEK),
    _family("dots1", {**DEEPSEEK, "head_dim": 8}),
    _family("gpt_oss", {**EXPERTS, "sliding_window": 12, "layer_types": WINDOWED}),
    _family("diffllama", COMMON),
    _family("jetmoe", {**EXPERTS, "kv_channels": 8, "num_key_value_heads": 2}),
    _family(
        "dbrx",
        {
            "vocab_size": VOCAB,
            "d_model": 32,
            "n_heads": 4,
            "n_layers": 2,
            "max_seq_len": CONTEXT,
            "attn_config": {"clip_qkv": 8.0, "kv_n_heads": 2, "rope_theta": 1e4},
            "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
        },
    ),
    _family("nanochat", COMMON),
    _family("bitnet", COMMON),
    _family("doge", COMMON),
    _family("llama4_text", {**EXPERTS, "intermediate_size_mlp": 64, "attention_chunk_size": 16}),
    _family(
        "modernbert-decoder", {**COMMON, "local_attention": 16, "pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2}
    ),
    _family(
        "minimax",
        {**EXPERTS, "layer_types": ["full_attention", "linear_attention"], "block_size": 16},
        cached=False,
        because="cumsum",
    ),
    _family("mamba", {**COMMON, "state_size": 4}, cached=False, because="conv"),
    _family(
        "rwkv", {**COMMON, "attention_hidden_size": 32, "context_length": CONTEXT}, cached=False, because="position"
    ),
    _family(
        "lfm2",
        {**COMMON, "layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
        cached=False,
        because="conv",
    ),
    _family(
        "recurrent_gemma",
        {**COMMON, "num_hidden_layers": 3, "attention_window_size": 16, "lru_width": 32},
        cached=False,
        because="conv",
    ),
)


def families() -> tuple[Family, ...]:
    """All of them, in the order of the table."""
    return FAMILIES


def family(name: str) -> Family:
    return _by_name()[name]


@functools.cache
def _by_name() -> dict[str, Family]:
    return {each.name: each for each in FAMILIES}


def factory(name: str) -> Callable[[], nn.Module]:
    """A family's factory, without arguments."""
    return family(name).make
