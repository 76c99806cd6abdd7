"""Weights that are stored the wrong way round for the product that reads them."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import NodeProto

from gpt_export.artifact.element_sizes import size_bytes
from gpt_export.artifact.onnx_model import OnnxModel, attribute
from gpt_export.linting.finding import Finding, Severity, tensor
from gpt_export.linting.registry import rule
from gpt_export.linting.settings import LintSettings
from gpt_export.linting.tensors import readable_size, shown

TRANSPOSED_WEIGHT = rule(
    "GX521",
    Severity.WARNING,
    "a weight goes through a Transpose into a MatMul: onnxruntime folds it at load, which costs time and memory twice",
    "store it as [in, out], or use Gemm transB=1 where other nodes read it as it is",
)


def transposed_weights(model: OnnxModel, _settings: LintSettings) -> Iterator[Finding]:
    """Transpose(initializer) whose readers are MatMuls, all in one finding."""
    found = [
        each.input[0]
        for each in model.nodes
        if each.op_type == "Transpose"
        and each.input
        and each.input[0] in model.initializers
        and _swaps(each, len(model.initializers[each.input[0]].dims))
        and _only_multiplied(each, model)
    ]
    if found:
        size = sum(size_bytes(model.initializers[name]) or 0 for name in dict.fromkeys(found))
        message = f"{len(found)} weights ({readable_size(size)}) are transposed before a MatMul: {shown(found)}"
        yield TRANSPOSED_WEIGHT.found(tensor(found[0]), message)


def _swaps(each: NodeProto, rank: int) -> bool:
    perm = attribute(each, "perm")
    return rank == 2 and (perm is None or list(perm.ints) == [1, 0])


def _only_multiplied(each: NodeProto, model: OnnxModel) -> bool:
    readers = model.readers.get(each.output[0], [])
    return bool(readers) and all(reader.op_type == "MatMul" for reader, _ in readers)
