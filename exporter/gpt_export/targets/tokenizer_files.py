"""GPT-2's tokenizer as Hugging Face's files, from the embedded merges; and the little that carried ones may lack.

The ids are tiktoken's. Source of the layout: `tokenizers`' serialised BPE and transformers' `GPT2Tokenizer`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from gpt_export_models.carried_tokenizer import USUAL_END
from gpt_export_models.tokenizer import END_OF_TEXT_ID, GPT2_VOCAB_SIZE, gpt2_encoding
from gpt_export_models.tokenizer_files import MERGES, SETTINGS, VOCABULARY, WHOLE

from gpt_export.artifact.manifest import dump
from gpt_export.targets.facts import Facts

LICENCE = "LICENSE-gpt2.txt"


def tokenizer_files(facts: Facts) -> dict[str, bytes]:
    """The tokenizer's files that the artifact lacks: none for ids alone, all for GPT-2's vocabulary.

    Beside carried files come a tokenizer.json (from vocab.json and merges.txt) and a tokenizer_config.json. vocab.json
    and merges.txt are not made from a carried tokenizer.json: who reads them splits texts as GPT-2 does.
    """
    if facts.has_gpt2_tokenizer:
        made = {WHOLE: gpt2_tokenizer_json(), SETTINGS: _settings(facts, USUAL_END, "GPT2Tokenizer")}
        if not facts.carried.keys() & {VOCABULARY, MERGES}:
            made |= {VOCABULARY: gpt2_vocab_json(), MERGES: gpt2_merges(), LICENCE: _data(LICENCE)}
    elif facts.carried_tokenizer:
        tokenizer = facts.carried_tokenizer
        end = None if tokenizer.end_of_text_id is None else tokenizer.end_of_text
        made = {WHOLE: tokenizer.to_json().encode(), SETTINGS: _settings(facts, end, "PreTrainedTokenizerFast")}
    else:
        return {}
    return {name: content for name, content in made.items() if name not in facts.carried}


@cache
def gpt2_vocab_json() -> bytes:
    """vocab.json: every token, in the characters that stand for its bytes, with its id."""
    return _compact(_gpt2_vocabulary())


@cache
def gpt2_merges() -> bytes:
    """merges.txt: OpenAI's vocab.bpe as it is."""
    return _data("vocab.bpe")


@cache
def gpt2_tokenizer_json() -> bytes:
    """tokenizer.json; merges are written as pairs with a space between, which every version of its readers takes."""
    lines = gpt2_merges().decode("utf-8").split("\n")
    bytes_alone = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return _compact(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": END_OF_TEXT_ID, "content": USUAL_END, **special}],
            "normalizer": None,
            "pre_tokenizer": bytes_alone,
            "post_processor": bytes_alone | {"trim_offsets": False},
            "decoder": bytes_alone,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": "",
                "end_of_word_suffix": "",
                "fuse_unk": False,
                "byte_fallback": False,
                "vocab": _gpt2_vocabulary(),
                "merges": [line for line in lines if line and not line.startswith("#version")],
            },
        }
    )


def _gpt2_vocabulary() -> dict[str, int]:
    encoding = gpt2_encoding()
    shown = _characters()
    tokens = {
        "".join(shown[byte] for byte in encoding.decode_single_token_bytes(i)): i for i in range(GPT2_VOCAB_SIZE - 1)
    }
    return tokens | {USUAL_END: END_OF_TEXT_ID}


def _characters() -> list[str]:
    """The character that stands for each byte: itself if it can be printed, else the next one from U+0100 on."""
    printed = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printed else chr(next(others)) for byte in range(256)]


def _settings(facts: Facts, end: str | None, tokenizer_class: str) -> bytes:
    """tokenizer_config.json. The end of text also pads, and on the left, as batches of a decoder need it."""
    tokens = {} if end is None else {"eos_token": end, "bos_token": end, "pad_token": end}
    values = {
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],  # else token types, which generate refuses
        "model_max_length": facts.context_length,
        "padding_side": "left",
        "tokenizer_class": tokenizer_class,
    }
    return dump(values | tokens | ({"unk_token": end} if tokenizer_class == "GPT2Tokenizer" else {})).encode()


def _compact(values: Mapping[str, Any]) -> bytes:
    """JSON in the order of its keys: readers of a vocabulary may take its order for the ids'."""
    return (json.dumps(values, ensure_ascii=False, separators=(",", ":")) + "\n").encode("utf-8")


def _data(name: str) -> bytes:
    return files("gpt_export_models").joinpath("data", name).read_bytes()
