"""A graph and its weights to `.onnx` files on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from torch import Tensor

from gpt_export.artifact.minimum_release import minimum_release
from gpt_export.artifact.onnx_model import OnnxModel
from gpt_export.artifact.releases import MINIMUM_ONNXRUNTIME
from gpt_export.artifact.validity import complaint
from gpt_export.errors import ConfigError, GraphError
from gpt_export.progress import OnPart, ignore_part
from gpt_export.runtime.signature import CacheShape, Signature
from gpt_export.weights.layout import Layout
from gpt_export.weights.streaming import plan, to_initializers, write_external

EXTERNAL_SUFFIX = "_data"


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """A written `.onnx`: what the manifest says of it, its weights' layouts, and the hashes known so far."""

    path: Path
    layouts: Mapping[str, Layout]
    description: Mapping[str, Any]
    hashes: Mapping[Path, str]


SINGLE_FILE_BYTES = 2**31 - 2**20
"""protobuf ends at 2 GB; a megabyte is left for the graph."""


def write_onnx(
    model: ir.Model,
    weights: Mapping[str, Tensor],
    signature: Signature,
    path: Path,
    *,
    cache: CacheShape | None = None,
    single_file: bool = False,
    facts: Mapping[str, Any] | None = None,
    on_part: OnPart = ignore_part,
) -> OnnxFile:
    """Writes `model` with its weights to `path`, and to `<path>_data` when they are large.

    Args:
        cache: the shape of the graph's key-value cache, for the description.
        facts: more for the description.
        single_file: keep the weights in `path` whatever their size.
        on_part: told of every weight that is written beside `path`.

    Raises:
        ConfigError: `single_file` was asked for and the weights are too large for it.
        OSError: the files cannot be written.
        GraphError: a weight is missing, misshapen or not finite, or the result is not valid ONNX.
    """
    planned = plan(model, weights, external=False if single_file else None)
    total = sum(weight.size_bytes for weight in planned)
    if single_file and total > SINGLE_FILE_BYTES:
        raise ConfigError(
            f"{total / 1e9:.1f} GB of weights do not fit a single ONNX file of 2 GB; leave --single-file out"
        )
    data_path = path.with_name(path.name + EXTERNAL_SUFFIX)
    external = any(weight.offset is not None for weight in planned)
    proto = ir.to_proto(to_initializers(model, planned, weights, data_path.name))
    path.write_bytes(proto.SerializeToString(deterministic=True))
    hashes = {data_path: write_external(planned, weights, data_path, on_part)} if external else {}
    if reason := complaint(proto):
        raise GraphError(f"the graph is not valid ONNX: {reason}; please report this")
    layouts = {weight.name: weight.layout for weight in planned}
    description = {
        "opset": model.opset_imports[""],
        "ir_version": model.ir_version,
        "minimum_onnxruntime": _minimum_onnxruntime(path, proto),
        "inputs": [spec.to_dict() for spec in signature.inputs],
        "outputs": [spec.to_dict() for spec in signature.outputs],
        "cache": cache.to_dict() if cache else None,
        "weights": {name: layout.to_dict() for name, layout in layouts.items()},
        **(facts or {}),
    }
    return OnnxFile(path, layouts, description, hashes)


def _minimum_onnxruntime(path: Path, proto: onnx.ModelProto) -> str:
    """The oldest onnxruntime that has the operators of `proto`, and at least the oldest that is tested."""
    needed = minimum_release(OnnxModel(path, proto))
    tested = tuple(int(part) for part in MINIMUM_ONNXRUNTIME.split("."))
    return needed.version if needed is not None and needed.number > tested else MINIMUM_ONNXRUNTIME
