"""What onnxruntime-genai 0.18 needs of a `decoder` (`static_kv_cache.cpp`, `default_position_inputs.cpp`).

The names are its defaults, which a genai_config.json may change; layers are found by the names of the pasts. A shared
past and present buffer needs an operator that writes in place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from gpt_export_models.regular_files import OBJECT_BYTES, read_text

from gpt_export.artifact.onnx_model import INTEGERS, OnnxModel, cache_pair
from gpt_export.linting.finding import FILE, Finding, Severity, tensor
from gpt_export.linting.registry import rule
from gpt_export.linting.settings import GENAI, LintSettings
from gpt_export.linting.tensors import shown

NAMES = rule(
    "GX421",
    Severity.ERROR,
    "an input or output without onnxruntime-genai's default name, or one that it needs is missing",
    "use input_ids, attention_mask, position_ids, past_key_values.{i}.key/.value; logits, present.{i}.key/.value",
    consumer=GENAI,
)
TYPES = rule(
    "GX422",
    Severity.ERROR,
    "ids, mask or positions are of a type that onnxruntime-genai refuses",
    "make them int64 or int32, mask and positions alike",
    consumer=GENAI,
)
CACHE = rule(
    "GX423",
    Severity.ERROR,
    "a past is not [batch, heads, past, size], or a layer's key or value is missing",
    "export one key and one value a layer in that layout",
    consumer=GENAI,
)
SHARED_BUFFER = rule(
    "GX424",
    Severity.ERROR,
    "genai_config.json asks for one buffer for past and present, and the graph has no operator that works in place",
    "set past_present_share_buffer to false, or export with GroupQueryAttention",
    consumer=GENAI,
)
NO_MASK = rule(
    "GX425",
    Severity.WARNING,
    "without attention_mask a batch of unequal prompts goes wrong: onnxruntime-genai pads on the right",
    "add attention_mask to the inputs and honour it",
    consumer=GENAI,
)
NO_CACHE = rule(
    "GX426",
    Severity.ERROR,
    "without a cache onnxruntime-genai feeds a new token alone, and the model forgets the text before it",
    "export with a cache",
    consumer=GENAI,
)
_FED = ("input_ids", "attention_mask", "position_ids", "past_sequence_length", "current_sequence_length")
_IN_PLACE = frozenset({"GroupQueryAttention", "SparseAttention", "DecoderMaskedMultiHeadAttention", "TensorScatter"})


def genai(model: OnnxModel, _settings: LintSettings) -> Iterator[Finding]:
    """Names, types, cache and the buffer that the configuration beside the model asks for."""
    pasts = {value.name: value for value in model.inputs if cache_pair(value.name)}
    yield from _names(model, list(pasts))
    yield from _types(model)
    if not pasts:
        yield NO_CACHE.found(FILE, "no input is named past_key_values.{i}.key; a decoder needs one a layer")
    else:
        for value in pasts.values():
            if value.rank != 4:
                message = f"{value.name} is {value}; [batch, heads, past, size] is expected"
                yield CACHE.found(tensor(value.name), message)
        layers = {layer for layer, _ in map(_pair, pasts)}
        wanted = {f"past_key_values.{layer}.{kind}" for layer in layers for kind in ("key", "value")}
        if lost := sorted(wanted - pasts.keys()):
            yield CACHE.found(FILE, f"there is no {shown(lost)}; every layer needs a key and a value")
        if model.input("attention_mask") is None:
            yield NO_MASK.found(FILE, f"the inputs are {shown([v.name for v in model.inputs])}; a mask is expected")
    if _wants_shared_buffer(model) and not any(operator in _IN_PLACE for _, operator in model.operators):
        yield SHARED_BUFFER.found(
            FILE, f"past_present_share_buffer is true, and no node is a {', '.join(sorted(_IN_PLACE))}"
        )


def _names(model: OnnxModel, pasts: list[str]) -> Iterator[Finding]:
    for needed, there in (("input_ids", model.input("input_ids")), ("logits", model.output("logits"))):
        if there is None:
            yield NAMES.found(FILE, f"there is no {needed}; onnxruntime-genai needs one of that name")
    for value in model.inputs:
        if value.name not in _FED and not cache_pair(value.name):
            message = (
                f"nothing is fed to the input {value.name}; onnxruntime-genai feeds {', '.join(_FED)} and the pasts"
            )
            yield NAMES.found(tensor(value.name), message)
    presents = [name.replace("past_key_values", "present", 1) for name in pasts]
    if lost := [name for name in presents if model.output(name) is None]:
        yield NAMES.found(FILE, f"there is no output {shown(lost)}; every past needs its present")


def _types(model: OnnxModel) -> Iterator[Finding]:
    found = {name: value for name in _FED if (value := model.input(name)) is not None}
    for name, value in found.items():
        if value.dtype not in INTEGERS:
            yield TYPES.found(tensor(name), f"{name} is {value}; int64 or int32 is allowed")
    mask, positions = found.get("attention_mask"), found.get("position_ids")
    if mask and positions and mask.dtype != positions.dtype:
        message = f"attention_mask is {mask.dtype_name}, position_ids {positions.dtype_name}; they must be alike"
        yield TYPES.found(tensor("position_ids"), message)


def _pair(name: str) -> tuple[int, str]:
    pair = cache_pair(name)
    assert pair is not None
    return pair


def _wants_shared_buffer(model: OnnxModel) -> bool:
    """What the genai_config.json beside the model, or in the folder above, says; False without one."""
    for folder in (model.path.parent, model.path.absolute().parent.parent):
        try:
            config: Any = json.loads(read_text(folder / "genai_config.json", largest=OBJECT_BYTES))
        except (OSError, ValueError, RecursionError):
            continue
        search = config.get("search") if isinstance(config, dict) else None
        return isinstance(search, dict) and bool(search.get("past_present_share_buffer"))
    return False
