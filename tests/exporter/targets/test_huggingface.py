"""config.json says the graph's numbers in GPT2Config's words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gpt_export.targets import huggingface
from gpt_export_models.tokenizer import END_OF_TEXT_ID

from tests.exporter.targets.manifests import GPT2, facts


def config(*variants: str, **settings: Any) -> dict[str, Any]:
    return json.loads(huggingface.files(facts(*variants, **settings))["config.json"])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"activation_function": "gelu_new", "n_inner": None, "tie_word_embeddings": True}),
        ({"activation": "gelu_erf"}, {"activation_function": "gelu"}),
        ({"hidden_dim": 50}, {"n_inner": 50}),
        ({"hidden_dim": 128}, {"n_inner": None}),
        ({"norm_eps": 1e-3}, {"layer_norm_epsilon": 1e-3}),
        ({"tied_head": False}, {"tie_word_embeddings": False}),
        ({"vocab_size": 50304}, {"vocab_size": 50304, "eos_token_id": END_OF_TEXT_ID}),
        ({"context_length": 77}, {"n_positions": 77, "n_ctx": 77}),
        ({"linear_bias": False, "norm_bias": False}, {"n_embd": 32, "n_head": 4, "n_layer": 2}),
    ],
)
def test_the_configuration_is_the_models(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    found = config(configuration=GPT2 | changes)
    assert found["model_type"] == "gpt2"
    assert expected.items() <= found.items()


def test_transformers_reads_the_configuration_as_it_was_saved(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is the oracle: pip install transformers")
    (tmp_path / "config.json").write_bytes(huggingface.files(facts())["config.json"])
    found = transformers.AutoConfig.from_pretrained(tmp_path)
    assert isinstance(found, transformers.GPT2Config)
    assert (found.hidden_size, found.num_attention_heads, found.num_hidden_layers) == (32, 4, 2)
    assert transformers.GPT2LMHeadModel(found).config.vocab_size == 50257


def test_external_data_is_announced_by_file() -> None:
    found = config("fp32", "int8", "int4", external=("fp32", "int4"))["transformers.js_config"]
    assert found == {"use_external_data_format": {"model.onnx": 1, "model_q4.onnx": 1}}


def test_one_file_a_variant_announces_nothing() -> None:
    assert "transformers.js_config" not in config("fp32", "int8")


def test_a_half_precision_cache_is_announced_for_its_dtype() -> None:
    assert config("fp16", cache_dtype="float16")["transformers.js_config"] == {"kv_cache_dtype": {"fp16": "float16"}}
    assert "transformers.js_config" not in config("fp16", cache_dtype="float32")


def test_generation_ends_and_pads_with_the_end_of_text() -> None:
    made = json.loads(huggingface.files(facts())["generation_config.json"])
    assert made == {"bos_token_id": 50256, "eos_token_id": 50256, "pad_token_id": 50256}
