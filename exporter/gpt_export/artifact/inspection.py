"""What an artifact or a lone `.onnx` file holds, read without running it and without torch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, ValueInfoProto

from gpt_export.artifact.element_sizes import size_bytes
from gpt_export.artifact.hashing import sha256_of
from gpt_export.artifact.onnx_bytes import read_proto
from gpt_export.artifact.onnx_model import dtype_name
from gpt_export.artifact.reading import Artifact


def inspect_path(path: Path) -> dict[str, Any]:
    """JSON values of an artifact folder (its manifest and each variant's graph) or of one `.onnx` file.

    Raises:
        ArtifactError: there is nothing at `path`, or it is neither.
    """
    if path.is_dir():
        artifact = Artifact.open(path)
        manifest = artifact.manifest
        return {
            "name": manifest.name,
            "source": dict(manifest.source),
            "model": dict(manifest.model),
            "libraries": dict(manifest.libraries),
            "parity_passed": (manifest.parity or {}).get("passed"),
            "model_digest": manifest.model_digest,
            "measured": None if manifest.measured is None else list(manifest.measured),
            "files": {name: dict(entry) for name, entry in manifest.files.items()},
            "graphs": {variant: inspect_onnx(artifact.variant_path(variant)) for variant in manifest.variants},
        }
    return {"graphs": {path.name: inspect_onnx(path)}, "files": _files(path)}


def inspect_onnx(path: Path) -> dict[str, Any]:
    """JSON values of one graph: signature, opsets, IR version, operator counts, bytes of weights.

    Raises:
        ArtifactError: the file is missing or not an ONNX model.
    """
    model = read_proto(path)
    graph = model.graph
    initializers = {tensor.name for tensor in graph.initializer}
    return {
        "ir_version": model.ir_version,
        "opsets": {entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "inputs": [_describe(value) for value in graph.input if value.name not in initializers],
        "outputs": [_describe(value) for value in graph.output],
        "operators": dict(sorted(Counter(_operator(node) for node in graph.node).items())),
        "weights": {
            "count": len(graph.initializer),
            "size_bytes": sum(_size_bytes(tensor) for tensor in graph.initializer),
            "external": sorted({_location(tensor) for tensor in graph.initializer} - {""}),
        },
    }


def _describe(value: ValueInfoProto) -> dict[str, Any]:
    kind = value.type.tensor_type
    dims = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in kind.shape.dim]
    return {"name": value.name, "dtype": dtype_name(kind.elem_type), "dims": dims}


def _operator(node: onnx.NodeProto) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


def _size_bytes(tensor: TensorProto) -> int:
    """Bytes of the elements; those of a type that this onnx does not know count as none."""
    if tensor.data_type == TensorProto.STRING:
        return sum(len(item) for item in tensor.string_data)
    return size_bytes(tensor) or 0


def _location(tensor: TensorProto) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def _files(path: Path) -> dict[str, dict[str, Any]]:
    return {path.name: {"sha256": sha256_of(path), "size_bytes": path.stat().st_size}}
