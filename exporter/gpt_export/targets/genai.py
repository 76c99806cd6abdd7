"""`genai_config.json` for onnxruntime-genai 0.18, a `decoder` whose files are those of the artifact.

Source: `src/config.h` and `config.cpp` of https://github.com/microsoft/onnxruntime-genai. A folder has one such file,
so it names one variant; `overlay` is what a program passes to `og.Config.overlay` to have another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gpt_export_models.tokenizer_files import is_tokenizers

from gpt_export.artifact.manifest import dump
from gpt_export.errors import ArtifactError
from gpt_export.runtime.signature import ATTENTION_MASK, INPUT_IDS, LOGITS, POSITION_IDS
from gpt_export.targets.facts import Facts
from gpt_export.targets.huggingface import query_heads
from gpt_export.targets.plan import FromArtifact, Plan
from gpt_export.targets.tokenizer_files import LICENCE

NAME = "genai_config.json"


def files(facts: Facts) -> dict[str, bytes]:
    """`genai_config.json` with the first of the variants.

    Nothing without a cache, on which its decoder rests, and where layers are unlike, of which it knows one shape.
    """
    if facts.decoder is None:
        return {}
    return {NAME: dump(settings(facts, next(iter(facts.variants)))).encode()}


def package(facts: Facts, variant: str) -> Plan:
    """A folder for `og.Model` with one variant: its files, `genai_config.json` for it, and the tokenizer.

    Raises:
        ArtifactError: the artifact has no configuration for onnxruntime-genai.
    """
    if facts.decoder is None:
        raise ArtifactError(
            f"{facts.name} is not for onnxruntime-genai, which needs a decoder with a cache whose layers are alike; "
            "`gpt-export inspect` shows this one's"
        )
    beside = [name for name in facts.manifest.files if is_tokenizers(name) or name in ("config.json", LICENCE)]
    return {
        **{name: FromArtifact(name) for name in (*beside, *facts.files_of(variant))},
        NAME: dump(settings(facts, variant)).encode(),
    }


def settings(facts: Facts, variant: str) -> dict[str, Any]:
    """The values of `genai_config.json` that open `variant`."""
    found, layer = facts.variants[variant], facts.decoder
    assert layer is not None
    heads = query_heads(facts, layer)
    model: dict[str, Any] = {
        "type": "decoder",
        "context_length": facts.context_length,
        "vocab_size": facts.vocab_size,
        "decoder": {
            "filename": found["path"],
            "head_size": layer.key_dim,
            "hidden_size": heads * layer.key_dim,
            "inputs": {
                "input_ids": INPUT_IDS,
                "attention_mask": ATTENTION_MASK,
                "position_ids": POSITION_IDS,
                "past_key_names": "past_key_values.%d.key",
                "past_value_names": "past_key_values.%d.value",
            },
            "num_attention_heads": heads,
            "num_hidden_layers": facts.n_layers,
            "num_key_value_heads": layer.n_heads,
            "outputs": {
                "logits": LOGITS,
                "present_key_names": "present.%d.key",
                "present_value_names": "present.%d.value",
            },
            "session_options": {"provider_options": []},
        },
    }
    if facts.end_id is not None:
        ends = list(facts.end_ids)
        model |= {"bos_token_id": facts.start_id, "eos_token_id": ends, "pad_token_id": facts.end_id}
    search = {
        "do_sample": False,
        "max_length": facts.context_length,
        "past_present_share_buffer": _shares(found),
    }
    return {"model": model, "search": search}


def overlay(variant: Mapping[str, Any]) -> str:
    """The JSON that turns the artifact's configuration to another variant, for `og.Config.overlay`."""
    values = {
        "model": {"decoder": {"filename": variant["path"]}},
        "search": {"past_present_share_buffer": _shares(variant)},
    }
    return json.dumps(values)


def _shares(variant: Mapping[str, Any]) -> bool:
    return bool(variant.get("shared_cache", False))
