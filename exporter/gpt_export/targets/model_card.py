"""README.md of an artifact: a model card whose figures are the manifest's, with the metadata that the hub reads.

Source: https://huggingface.co/docs/hub/model-cards. The licence of the weights is what whoever exports says it is, and
`unknown`, one of the hub's identifiers, until then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from gpt_export.artifact.machine import in_words
from gpt_export.targets import transformers_js
from gpt_export.targets.facts import Facts
from gpt_export.targets.genai import overlay
from gpt_export.targets.tokenizer_files import LICENCE, tokenizer_files
from gpt_export.version import __version__

NAME = "README.md"
PROMPT, SHORT_PROMPT = "Every effort moves you", "Hi"
LONG_ENOUGH = 32
"""A longer context has room for the prompt and ten tokens more, whatever the tokenizer."""
PROFILES: Mapping[str, str] = {"portable": "standard", "ort": "onnxruntime's"}
"""Whose operators a graph uses, in words."""


def files(facts: Facts) -> dict[str, bytes]:
    """The model card of any artifact, the skeleton's too."""
    default, parity = facts.default, facts.manifest.parity
    text = _template().render(
        facts=facts,
        name=one_line(facts.name),
        description=_description(facts),
        tags=_tags(facts),
        variants=[_row(facts, name, variant) for name, variant in facts.variants.items()],
        parity=parity,
        measured_on=in_words(parity["measured_on"]) if parity else None,
        cache=default["cache"] if default else None,
        has_tokenizer=facts.has_gpt2_tokenizer or facts.carried_tokenizer is not None,
        dtype=transformers_js.DTYPES.get(next(iter(facts.variants), ""), "fp32"),
        weights_license=facts.manifest.export.get("license"),
        base_model=facts.manifest.export.get("base_model"),
        continues=facts.manifest.model.get("head", {}).get("of", "tokens") == "tokens",
        prompt=PROMPT if facts.context_length > LONG_ENOUGH else SHORT_PROMPT,
        licence=LICENCE if LICENCE in tokenizer_files(facts) else None,
    )
    return {NAME: text.encode("utf-8")}


def one_line(text: str) -> str:
    """`text` with everything that Markdown, YAML or a line end would read otherwise replaced by hyphens."""
    return re.sub(r"[^\w.+-]+", "-", text).strip("-") or "model"


def _description(facts: Facts) -> str:
    source = facts.manifest.source
    what = {
        "checkpoint": f"a checkpoint ({source.get('family')})",
        "seeded": "weights drawn at random, which say nothing: for tests and benchmarks",
    }.get(str(source.get("kind")), "a PyTorch module")
    shape = facts.config
    form = f"A GPT of {shape.n_layers} layers, width {shape.emb_dim} and {shape.n_heads} heads" if shape else "A model"
    return f"{form}, exported by gpt-export {__version__} from {what}."


def _tags(facts: Facts) -> list[str]:
    if facts.config is None:
        return ["onnx", "gpt-export"]
    return ["onnx", "gpt2", "text-generation", "onnxruntime", "optimum", "transformers.js", "gpt-export"]


def _row(facts: Facts, name: str, variant: Mapping[str, Any]) -> dict[str, Any]:
    size = sum(facts.manifest.files[path]["size_bytes"] for path in facts.files_of(name))
    return {
        "name": name,
        "path": variant["path"],
        "megabytes": size / 1e6,
        "opset": variant["opset"],
        "minimum_onnxruntime": variant["minimum_onnxruntime"],
        "profile": PROFILES.get(str(variant.get("profile", "portable")), "of its own"),
        "overlay": overlay(variant) if variant["cache"] and variant is not facts.default else None,
    }


@cache
def _template() -> Template:
    loader = PackageLoader("gpt_export", "targets")
    # Markdown, not HTML: what could break it is kept out of the values instead
    return Environment(loader=loader, undefined=StrictUndefined, keep_trailing_newline=True).get_template(
        "model_card.md.jinja"
    )
