"""Every GPT of the book "Build a Large Language Model (From Scratch)", by its authors' own package, made tiny."""

from typing import Any

import torch
from llms_from_scratch import appendix_e, ch04, llama3, qwen3
from llms_from_scratch.kv_cache import gpt2 as cached_gpt2
from llms_from_scratch.kv_cache import llama3 as cached_llama3
from llms_from_scratch.kv_cache import qwen3 as cached_qwen3
from llms_from_scratch.kv_cache_batched import qwen3 as batched_qwen3
from torch import nn

from tests.zoo.animal import CONTEXT, VOCAB, animal

KIND = "the book's classes"

GPT: dict[str, Any] = {
    "vocab_size": VOCAB,
    "context_length": CONTEXT,
    "emb_dim": 48,
    "n_heads": 4,
    "n_layers": 2,
    "drop_rate": 0.1,
    "qkv_bias": False,
}
LLAMA: dict[str, Any] = {
    "vocab_size": VOCAB,
    "context_length": CONTEXT,
    "emb_dim": 32,
    "n_heads": 4,
    "n_layers": 2,
    "hidden_dim": 64,
    "n_kv_groups": 2,
    "rope_base": 500_000.0,
    "dtype": torch.float32,
    "rope_freq": {
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_context_length": 16,
    },
}
QWEN: dict[str, Any] = {
    "vocab_size": VOCAB,
    "context_length": CONTEXT,
    "emb_dim": 32,
    "n_heads": 4,
    "n_layers": 2,
    "hidden_dim": 64,
    "head_dim": 16,
    "qk_norm": True,
    "n_kv_groups": 2,
    "rope_base": 10_000.0,
    "dtype": torch.float32,
}
MOE: dict[str, Any] = {**QWEN, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}


@animal(KIND)
def book_gpt() -> nn.Module:
    """Chapter 4, as printed."""
    return ch04.GPTModel(GPT)


@animal(KIND)
def book_gpt_qkv_bias() -> nn.Module:
    """With the biases that GPT-2's weights need (chapter 5)."""
    return ch04.GPTModel({**GPT, "qkv_bias": True})


@animal(KIND)
def book_gpt_fast() -> nn.Module:
    return ch04.GPTModelFast(GPT)


@animal(KIND)
def book_gpt_kv_cache() -> nn.Module:
    return cached_gpt2.GPTModel(GPT)


@animal(KIND)
def book_gpt_lora() -> nn.Module:
    """Appendix E: every linear layer wrapped in a low-rank update."""
    model = ch04.GPTModel(GPT)
    appendix_e.replace_linear_with_lora(model, rank=4, alpha=8)
    return model


@animal(KIND, output="classes", classes=2, cached=False, because="classes")
def book_gpt_spam() -> nn.Module:
    """Chapter 6: the output head replaced by one of two classes."""
    model = ch04.GPTModel({**GPT, "qkv_bias": True})
    model.out_head = nn.Linear(GPT["emb_dim"], 2)
    return model


@animal(KIND)
def book_llama3() -> nn.Module:
    return llama3.Llama3Model(LLAMA)


@animal(KIND)
def book_llama3_fast() -> nn.Module:
    return llama3.Llama3ModelFast(LLAMA)


@animal(KIND)
def book_llama3_bfloat16() -> nn.Module:
    """As its configurations have it: every weight, and what is cast on the way, in bfloat16."""
    return llama3.Llama3Model({**LLAMA, "dtype": torch.bfloat16})


@animal(KIND)
def book_llama3_kv_cache() -> nn.Module:
    return cached_llama3.Llama3Model(LLAMA)


@animal(KIND)
def book_llama3_kv_cache_fast() -> nn.Module:
    return cached_llama3.Llama3ModelFast(LLAMA)


@animal(KIND)
def book_qwen3() -> nn.Module:
    return qwen3.Qwen3Model(QWEN)


@animal(KIND)
def book_qwen3_bfloat16() -> nn.Module:
    return qwen3.Qwen3Model({**QWEN, "dtype": torch.bfloat16})


@animal(KIND)
def book_qwen3_moe() -> nn.Module:
    return _on_cpu(qwen3.Qwen3Model(MOE))


@animal(KIND)
def book_qwen3_kv_cache() -> nn.Module:
    return cached_qwen3.Qwen3Model(QWEN)


@animal(KIND)
def book_qwen3_moe_kv_cache() -> nn.Module:
    return _on_cpu(cached_qwen3.Qwen3Model(MOE))


@animal(KIND)
def book_qwen3_kv_cache_batched() -> nn.Module:
    return batched_qwen3.Qwen3Model(QWEN)


def _on_cpu(model: nn.Module) -> nn.Module:
    """The model with its experts, which the book leaves on the meta device until weights are loaded, given memory."""
    for part in model.modules():
        if isinstance(part, nn.Linear) and part.weight.is_meta:
            part.to_empty(device="cpu")
    return model
