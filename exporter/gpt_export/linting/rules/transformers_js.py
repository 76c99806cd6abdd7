"""What transformers.js 4 needs (`models/session.js`, `models/modeling_utils.js`, `utils/model-loader.js`).

It asks for `onnx/model{suffix}.onnx` and, where the configuration announces it, for `<that name>_data`. For an empty
cache it makes tensors of the shapes that the session reports: `batch_size` is known, every other name becomes 0. After
a step, `present` in an output's name is replaced by `past_key_values`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from gpt_export.artifact.onnx_model import OnnxModel, Value, cache_pair
from gpt_export.linting.finding import FILE, Finding, Location, Severity, tensor
from gpt_export.linting.registry import rule
from gpt_export.linting.settings import TRANSFORMERS_JS, LintSettings
from gpt_export.linting.tensors import external, shown

FILE_NAME = rule(
    "GX411",
    Severity.WARNING,
    "transformers.js asks for onnx/model.onnx, or with a suffix for the type of the weights, and for no other name",
    "put the file at onnx/model.onnx, or _fp16, _quantized, _q4 and so on before .onnx",
    consumer=TRANSFORMERS_JS,
)
DATA_NAME = rule(
    "GX412",
    Severity.ERROR,
    "external data is not named as transformers.js asks for it: the .onnx file's name and _data, then _data_1",
    "save with location=<file name>_data",
    consumer=TRANSFORMERS_JS,
)
NAMES = rule(
    "GX413",
    Severity.ERROR,
    "an input or output that transformers.js does not know, or one that it needs is missing",
    "name them input_ids, attention_mask, position_ids, past_key_values.{i}.key/.value; logits, present.{i}.key/.value",
    consumer=TRANSFORMERS_JS,
)
CACHE_DIMS = rule(
    "GX414",
    Severity.ERROR,
    "a past's dims do not make an empty cache in transformers.js: it knows batch_size, other names become 0",
    "name the batch dim batch_size, the past dim as you like, and make heads and head size numbers",
    consumer=TRANSFORMERS_JS,
)
_SUFFIXES = "|_fp16|_int8|_uint8|_quantized|_q4|_q2|_q1|_q4f16|_q2f16|_q1f16|_bnb4"
_FILE = re.compile(rf"model({_SUFFIXES})\.onnx")
_FED = ("input_ids", "attention_mask", "position_ids", "use_cache_branch", "num_logits_to_keep")
_BATCH = "batch_size"


def transformers_js(model: OnnxModel, _settings: LintSettings) -> Iterator[Finding]:
    """File names, tensor names and cache dims, as transformers.js uses them."""
    path = model.path
    if not _FILE.fullmatch(path.name) or path.absolute().parent.name != "onnx":
        shown_path = f"{path.absolute().parent.name}/{path.name}"
        yield FILE_NAME.found(FILE, f"the file is {shown_path}; onnx/model.onnx or one with a known suffix is expected")
    yield from _data_names(model)
    yield from _names(model)
    for value in model.inputs:
        if cache_pair(value.name):
            yield from _cache_dims(value)


def _data_names(model: OnnxModel) -> Iterator[Finding]:
    wanted = re.compile(re.escape(model.path.name) + r"_data(_[1-9]\d*)?")
    locations = set()
    for each in model.initializers.values():
        try:
            place = external(each)
        except ValueError:
            continue
        if place is not None:
            locations.add(place.location)
    for location in sorted(locations):
        if not wanted.fullmatch(location):
            message = f"external data is in {location}; {model.path.name}_data is expected"
            yield DATA_NAME.found(Location("file", location), message)


def _names(model: OnnxModel) -> Iterator[Finding]:
    for needed, there in (("input_ids", model.input("input_ids")), ("logits", model.output("logits"))):
        if there is None:
            yield NAMES.found(FILE, f"there is no {needed}; transformers.js needs one of that name")
    for value in model.inputs:
        if value.name not in _FED and not cache_pair(value.name):
            message = f"nothing is fed to the input {value.name}; transformers.js feeds {', '.join(_FED)} and the pasts"
            yield NAMES.found(tensor(value.name), message)
    pasts = [value.name for value in model.inputs if cache_pair(value.name)]
    presents = {value.name.replace("present", "past_key_values", 1) for value in model.outputs}
    if lost := [name for name in pasts if name not in presents]:
        message = f"no output becomes {shown(lost)}; present.{{i}}.key and .value are expected for every past"
        yield NAMES.found(FILE, message)


def _cache_dims(value: Value) -> Iterator[Finding]:
    dims = value.dims
    if dims is None or len(dims) != 4:
        fault = "four dims are expected"
    elif dims[0] != _BATCH:
        fault = f"the first must be named {_BATCH}"
    elif not all(isinstance(dims[axis], int) for axis in (1, 3)):
        fault = "heads and head size must be numbers"
    elif isinstance(dims[2], int):
        fault = "the past must be a name"
    else:
        return
    yield CACHE_DIMS.found(tensor(value.name), f"{value.name} is {value}; {fault}")
