"""What a manifest is made of, as a JSON Schema (draft 2020-12) and as the check of it.

The schema is published as `docs/manifest.schema.json`. It is checked by `schema.py` and not by a package, because
whoever runs an artifact has numpy and onnxruntime alone; a test holds the two to the same verdicts.
"""

from __future__ import annotations

from typing import Any

from gpt_export.artifact.schema import fault_of

_LARGEST = 2**31 - 1
_PRINTED = r"^[^\u0000-\u001f\u007f]*$"
"""Names and paths: no control characters."""

Schema = dict[str, Any]


def _object(required: Schema, more: Schema | None = None, others: Schema | bool = True) -> Schema:
    """An object with these fields, further ones that it may have, and what others are."""
    made: Schema = {"type": "object", "required": sorted(required), "properties": required | (more or {})}
    return made if others is True else made | {"additionalProperties": others}


def _map_of(values: Schema) -> Schema:
    return {"type": "object", "propertyNames": {"pattern": _PRINTED}, "additionalProperties": values}


def _or_null(values: Schema) -> Schema:
    return {"anyOf": [{"type": "null"}, values]}


def _list_of(values: Schema) -> Schema:
    return {"type": "array", "items": values}


_TEXT: Schema = {"type": "string"}
_NAME: Schema = {"type": "string", "pattern": _PRINTED}
_BOOL: Schema = {"type": "boolean"}
_COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
_SIZE: Schema = {"type": "integer", "minimum": 1, "maximum": _LARGEST}
_NUMBER: Schema = {"type": ["number", "null"]}
_SHA256: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_VERSION: Schema = {"type": "string", "pattern": r"^[0-9]{1,6}\.[0-9]{1,6}(\.[0-9]{1,6})?$"}
_LIMITS = {"type": "object", "additionalProperties": _NUMBER}
_TENSOR = _object(
    {
        "name": _NAME,
        "dtype": {"type": "string", "pattern": "^[a-z][a-z0-9]*$"},
        "dims": _list_of({"anyOf": [{"type": "integer", "minimum": 0, "maximum": 2**63 - 1}, _NAME]}),
    }
)
_CACHE: Schema = {
    "anyOf": [
        {"type": "null"},
        _object({"n_layers": {**_SIZE, "maximum": 100_000}, "n_heads": _SIZE, "head_dim": _SIZE}, others=False),
        _object(
            {
                "layers": {
                    **_list_of(_object({"n_heads": _SIZE, "key_dim": _SIZE, "value_dim": _SIZE}, others=False)),
                    "minItems": 1,
                }
            },
            others=False,
        ),
    ]
}
_CODED = _object({"bits": _SIZE, "block": _or_null(_SIZE), "part": _NAME}, others=False)
_LAYOUT = _object({"sources": {**_list_of(_NAME), "minItems": 1}, "transposed": _BOOL}, {"coded": _or_null(_CODED)})
_HEAD = _object(
    {"of": {"enum": ["tokens", "classes"]}, "positions": {"enum": ["all", "last", "none"]}, "width": _SIZE},
    others=False,
)
_VARIANT = _object(
    {
        "path": _NAME,
        "opset": _SIZE,
        "ir_version": _SIZE,
        "minimum_onnxruntime": _VERSION,
        "inputs": _list_of(_TENSOR),
        "outputs": _list_of(_TENSOR),
        "cache": _CACHE,
        "weights": _map_of(_LAYOUT),
    },
    {
        "operators": {"type": "object", "additionalProperties": _COUNT},
        "cache_dtype": {"enum": [None, "float32", "float16", "int8"]},
        "shared_cache": _BOOL,
        "profile": _NAME,
        "quantized_share": _NUMBER,
    },
)
_EXPORT = _object(
    {"seed": {"type": "integer", "minimum": -(2**63), "maximum": 2**64 - 1}, "opset": _SIZE, "limits": _LIMITS,
     "texts": _or_null(_list_of(_TEXT))},
    {"license": _or_null(_TEXT), "base_model": _or_null(_TEXT)},
)  # fmt: skip
_MODEL = _object(
    {
        "vocab_size": _SIZE,
        "context_length": _SIZE,
        "tokenizer": _or_null(_NAME),
        "configuration": {"type": "object"},
        "notes": _list_of(_TEXT),
    },
    {"turns": _list_of(_SIZE), "head": _HEAD, "judged_against": _TEXT},
)
_SOURCE = _object(
    {"kind": _NAME},
    {"seed": {"type": "integer"}}
    | dict.fromkeys(("name", "class", "factory", "family", "model_type", "weights", "road"), _or_null(_NAME)),
)
_TARGET = _object(
    {"positions": _COUNT},
    {"passed": _BOOL, "cases": _COUNT, "bounded": _BOOL}
    | dict.fromkeys(("strain", "top1_agreement", "perplexity_change", "kl_mean", "worst_ratio"), _NUMBER),
)
_PARITY = _object(
    {"passed": _BOOL, "targets": _map_of(_TARGET)},
    {"notes": _list_of(_TEXT), "failures": _list_of(_TEXT), "faults": _list_of(_TEXT)},
)

MANIFEST_SCHEMA: Schema = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "manifest.json of an artifact of gpt-export, format version 1",
    **_object(
        {
            "name": _NAME,
            "source": _SOURCE,
            "export": _EXPORT,
            "model": _MODEL,
            "variants": _map_of(_VARIANT),
            "libraries": _map_of(_TEXT),
            "parity": _or_null(_PARITY),
            "files": _map_of(_object({"sha256": _SHA256, "size_bytes": _COUNT})),
            "format": {"const": "gpt-export"},
            "format_version": {"const": 1},
        },
        {"measured": _or_null(_list_of(_NAME)), "model_digest": _SHA256, "digest": _SHA256},
        others=False,
    ),
}
"""Fields of an object beyond those that are named are allowed within the parts: later versions may tell more."""


def schema_fault(body: object) -> str | None:
    """The first thing in a manifest's JSON values that is not as the schema has it, in words; None without one."""
    return fault_of(body, MANIFEST_SCHEMA)
