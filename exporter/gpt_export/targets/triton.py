"""A Triton model repository for the onnxruntime backend: `<name>/config.pbtxt` and `<name>/1/model.onnx`.

Source: `model_config.proto` of https://github.com/triton-inference-server/common, and the backend's
`AutoCompleteMaxBatch`, which lets Triton batch when dim 0 of every input and output is dynamic. They all are the batch
here, so requests of one shape are joined along it, decoding steps with pasts of one length among them. Requests of
unequal lengths are not joined (that is Triton's default: no input allows ragged batches), so nothing is ever padded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from gpt_export.targets.facts import Facts
from gpt_export.targets.plan import FromArtifact, Plan

MAX_BATCH_SIZE = 8
"""Rows of one run. Triton refuses larger requests; memory of logits and cache grows with it."""
TYPES: Mapping[str, str] = {"int64": "TYPE_INT64", "float32": "TYPE_FP32", "float16": "TYPE_FP16", "int8": "TYPE_INT8"}


def package(facts: Facts, variant: str) -> Plan:
    """The model's folder in a repository. The graph is `model.onnx` whatever the variant; its data keep their name."""
    graph, *data = facts.files_of(variant)
    files = {"1/model.onnx": graph, **{f"1/{PurePosixPath(path).name}": path for path in data}}
    return {
        "config.pbtxt": config(facts.folder_name, facts.variants[variant]).encode("utf-8"),
        **{name: FromArtifact(path) for name, path in files.items()},
    }


def config(name: str, variant: Mapping[str, Any]) -> str:
    """`config.pbtxt`, a `ModelConfig` in protobuf's text format."""
    values: Sequence[Mapping[str, Any]] = [*variant["inputs"], *variant["outputs"]]
    batches = all(value["dims"] and isinstance(value["dims"][0], str) for value in values)
    lines = [
        f"name: {json.dumps(name)}",
        'backend: "onnxruntime"',
        f"max_batch_size: {MAX_BATCH_SIZE if batches else 0}",
        *(["dynamic_batching { }"] if batches else []),
    ]
    for kind in ("input", "output"):
        entries = ",\n".join(_entry(value, skip=int(batches)) for value in variant[f"{kind}s"])
        lines.append(f"{kind} [\n{entries}\n]")
    return "\n".join(lines) + "\n"


def _entry(value: Mapping[str, Any], skip: int) -> str:
    """One tensor; the batch dim, which `max_batch_size` stands for, is left out."""
    dims = ", ".join(str(dim) if isinstance(dim, int) else "-1" for dim in value["dims"][skip:])
    name, kind = json.dumps(value["name"]), TYPES[value["dtype"]]
    return f"  {{\n    name: {name}\n    data_type: {kind}\n    dims: [ {dims} ]\n  }}"
