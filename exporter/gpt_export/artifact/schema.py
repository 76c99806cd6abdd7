"""JSON values against a JSON Schema of a few keywords, without a package for it.

Source: https://json-schema.org/draft/2020-12/json-schema-validation. One thing is stricter: an integer is one that is
spelled as such, and 1.0 is none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gpt_export_models.problems import some

_TYPES: Mapping[str, Callable[[object], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
}


def fault_of(value: object, schema: Mapping[str, Any], where: str = "") -> str | None:
    """The first fault of a value, with the place that it is at; None where it is as the schema says.

    Args:
        where: the place of the value, `files.onnx/model.onnx.sha256` say; empty for the whole.
    """
    return next(_faults(value, schema, where), None)


def _faults(value: object, schema: Mapping[str, Any], where: str) -> Iterator[str]:
    place = some([where], limit=1) if where else "it"
    kinds = schema.get("type")
    if kinds is not None and not any(_TYPES[kind](value) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        yield f"{place} is {_shown(value)}, not {_names(kinds)}"
        return
    if "const" in schema and not _same(value, schema["const"]):
        yield f"{place} is {_shown(value)}, not {_shown(schema['const'])}"
    if "enum" in schema and not any(_same(value, each) for each in schema["enum"]):
        yield f"{place} is {_shown(value)}, not one of {', '.join(map(_shown, schema['enum']))}"
    if "anyOf" in schema:
        found = [fault_of(value, each, where) for each in schema["anyOf"]]
        if all(found):
            yield str(found[-1])
    if isinstance(value, str) and "pattern" in schema and not _matches(schema["pattern"], value):
        yield f"{place} is {_shown(value)}, which does not match {schema['pattern']}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield from _of_number(value, schema, place)
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            yield f"{place} has {len(value)} items, not at least {schema['minItems']}"
        for index, item in enumerate(value if "items" in schema else ()):
            yield from _faults(item, schema["items"], f"{where}[{index}]")
    if isinstance(value, dict):
        yield from _of_object(value, schema, where)


def _of_number(value: float, schema: Mapping[str, Any], place: str) -> Iterator[str]:
    if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield f"{place} is {_shown(value)}, not from {schema.get('minimum', '')} to {schema.get('maximum', '')}"


def _of_object(value: dict[str, Any], schema: Mapping[str, Any], where: str) -> Iterator[str]:
    known = schema.get("properties", {})
    others = schema.get("additionalProperties", True)
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{some([where]) if where else 'it'} lacks {name}"
    for name, item in value.items():
        inner = f"{where}.{name}" if where else name
        if "propertyNames" in schema:
            yield from _faults(name, schema["propertyNames"], f"a name in {where}")
        if name in known:
            yield from _faults(item, known[name], inner)
        elif others is False:
            yield f"{some([inner])} is not known"
        elif others is not True:
            yield from _faults(item, others, inner)


def _same(value: object, other: object) -> bool:
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return some([json.dumps(value, ensure_ascii=False)])


def _names(kinds: str | list[str]) -> str:
    return " or ".join([kinds] if isinstance(kinds, str) else kinds)


def _matches(pattern: str, text: str) -> bool:
    """Whether `pattern` is found, its `$` the end of the text alone, as in JSON Schema and unlike in Python."""
    return re.search(pattern.removesuffix("$") + r"\Z" if pattern.endswith("$") else pattern, text) is not None
