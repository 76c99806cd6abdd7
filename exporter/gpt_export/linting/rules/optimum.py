"""What Optimum's ORTModelForCausalLM needs (optimum-onnx 0.1, `onnxruntime/modeling_decoder.py` and `base.py`).

It feeds `input_ids`, `attention_mask`, `position_ids`, `use_cache_branch`, and the pasts by zipping the inputs whose
names have `.key` or `.value` with a flat list. Outputs are cut into (key, value) pairs in their order. For every other
output it allocates memory: a dim's name is looked up among the dims of the inputs, otherwise its words, split at
spaces, are replaced by the sizes of input dims and evaluated as Python.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from gpt_export.artifact.onnx_model import OnnxModel, Value
from gpt_export.linting.finding import FILE, Finding, Severity, tensor
from gpt_export.linting.registry import rule
from gpt_export.linting.settings import OPTIMUM, LintSettings
from gpt_export.linting.tensors import shown

NAMES = rule(
    "GX401",
    Severity.ERROR,
    "an input or output that Optimum does not know, or one that it needs is missing",
    "name them input_ids, attention_mask, position_ids, past_key_values.{i}.key/.value and logits",
    consumer=OPTIMUM,
)
ORDER = rule(
    "GX402",
    Severity.ERROR,
    "pasts and presents are not key, value, key, value in the order of the layers: Optimum zips them by position",
    "order inputs and outputs by layer, the key before the value",
    consumer=OPTIMUM,
)
DIMS = rule(
    "GX403",
    Severity.ERROR,
    "a dim of an output is no expression of the input dims that Optimum can evaluate, as IO binding needs",
    "name it after a dim of an input, or as words and numbers with spaces between: a + b",
    consumer=OPTIMUM,
)
CACHE_LAYOUT = rule(
    "GX404",
    Severity.ERROR,
    "a past is not [batch, heads, past, size], which is what Optimum makes when there is none",
    "export the cache in that layout",
    consumer=OPTIMUM,
)
NO_POSITIONS = rule(
    "GX405",
    Severity.WARNING,
    "without position_ids Optimum calls a GPT-2 a legacy export and warns; padded batches get wrong positions",
    "add position_ids to the inputs",
    consumer=OPTIMUM,
)
NO_CACHE = rule(
    "GX406",
    Severity.NOTE,
    "without a cache Optimum loads the file only with use_cache=False",
    "export with a cache, or load with use_cache=False",
    consumer=OPTIMUM,
)
_FED = ("input_ids", "attention_mask", "position_ids", "use_cache_branch")


def optimum(model: OnnxModel, _settings: LintSettings) -> Iterator[Finding]:
    """Names, order, dims and layout, as Optimum uses them."""
    yield from _names(model)
    pasts = [value for value in model.inputs if _is_past(value)]
    presents = [value for value in model.outputs if _is_past(value)]
    if pasts or presents:
        yield from _order(pasts, presents)
        yield from _layout(pasts)
        if model.input("position_ids") is None:
            yield NO_POSITIONS.found(FILE, f"the inputs are {shown(_list(model.inputs), 4)}; position_ids is expected")
    else:
        yield NO_CACHE.found(FILE, "no input name has .key or .value")
    known = {dim for value in model.inputs for dim in value.dims or () if isinstance(dim, str)}
    for value in model.outputs:
        if _is_past(value):
            continue  # their shapes follow from the configuration
        for dim in value.dims or ():
            if not _can_be_evaluated(dim, known):
                names = shown(sorted(known), 6)
                message = f"{value.name} is {value}; {dim or '?'} does not follow from the input dims ({names})"
                yield DIMS.found(tensor(value.name), message)


def _names(model: OnnxModel) -> Iterator[Finding]:
    for needed, there in (("input_ids", model.input("input_ids")), ("logits", model.output("logits"))):
        if there is None:
            yield NAMES.found(FILE, f"there is no {needed}; Optimum needs one of that name")
    for value in model.inputs:
        if value.name not in _FED and not _is_past(value):
            message = f"nothing is fed to the input {value.name}; Optimum feeds {', '.join(_FED)}, *.key and *.value"
            yield NAMES.found(tensor(value.name), message)


def _order(pasts: list[Value], presents: list[Value]) -> Iterator[Finding]:
    for what, values in (("pasts", pasts), ("presents", presents)):
        kinds = ["key" if ".key" in value.name else "value" for value in values]
        layers = [_layer(value.name) for value in values]
        if kinds != ["key", "value"] * (len(values) // 2) or layers != sorted(layers):
            names = shown(_list(values), 4)
            yield ORDER.found(FILE, f"the {what} are {names}; 0.key, 0.value, 1.key, 1.value and so on are expected")
    if len(pasts) != len(presents):
        yield ORDER.found(FILE, f"there are {len(pasts)} pasts and {len(presents)} presents; as many are expected")


def _layout(pasts: list[Value]) -> Iterator[Finding]:
    for value in pasts:
        dims = value.dims or ()
        # Only a number can be wrong: names take whatever is fed.
        if value.dims is not None and (len(dims) != 4 or isinstance(dims[2], int)):
            message = f"{value.name} is {value}; [batch, heads, past, size] with a dynamic past is expected"
            yield CACHE_LAYOUT.found(tensor(value.name), message)


def _can_be_evaluated(dim: int | str | None, known: set[str]) -> bool:
    if dim is None or isinstance(dim, int) or dim in known:
        return dim is not None
    words = ["1" if word in known else word for word in dim.split(" ")]
    try:
        parsed = ast.parse(" ".join(words), mode="eval")
    except SyntaxError:
        return False
    allowed = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop, ast.Constant)
    return all(isinstance(part, allowed) for part in ast.walk(parsed))


def _is_past(value: Value) -> bool:
    return ".key" in value.name or ".value" in value.name


def _layer(name: str) -> int:
    """The first number between dots, -1 without."""
    return next((int(word) for word in name.split(".") if word.isdigit()), -1)


def _list(values: list[Value]) -> list[str]:
    return [value.name for value in values]
