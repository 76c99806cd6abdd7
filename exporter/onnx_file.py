"""A graph and its weights to `.onnx` files on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from torch import Tensor

from exporter.errors import GraphError
from exporter.layout import Layout
from exporter.opsets import MINIMUM_ONNXRUNTIME
from exporter.signature import Signature
from exporter.weights import plan, to_initializers, write_external

EXTERNAL_SUFFIX = "_data"


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """A written `.onnx`: what the manifest says of it, its weights' layouts, and the hashes known so far."""

    path: Path
    layouts: Mapping[str, Layout]
    description: Mapping[str, Any]
    hashes: Mapping[Path, str]


def write_onnx(model: ir.Model, weights: Mapping[str, Tensor], signature: Signature, path: Path) -> OnnxFile:
    """Writes `model` with its weights to `path`, and to `<path>_data` when they are large.

    Raises:
        OSError: the files cannot be written.
        GraphError: a weight is missing, misshapen or not finite, or the result is not valid ONNX.
    """
    planned = plan(model, weights)
    data_path = path.with_name(path.name + EXTERNAL_SUFFIX)
    external = any(weight.offset is not None for weight in planned)
    proto = ir.to_proto(to_initializers(model, planned, weights, data_path.name))
    path.write_bytes(proto.SerializeToString(deterministic=True))
    hashes = {data_path: write_external(planned, weights, data_path)} if external else {}
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        raise GraphError(f"the graph is not valid ONNX: {error}; please report this") from error
    layouts = {weight.name: weight.layout for weight in planned}
    description = {
        "opset": model.opset_imports[""],
        "ir_version": model.ir_version,
        "minimum_onnxruntime": MINIMUM_ONNXRUNTIME,
        "inputs": [spec.to_dict() for spec in signature.inputs],
        "outputs": [spec.to_dict() for spec in signature.outputs],
        "weights": {name: layout.to_dict() for name, layout in layouts.items()},
    }
    return OnnxFile(path, layouts, description, hashes)
