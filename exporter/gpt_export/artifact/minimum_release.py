"""The oldest onnxruntime that loads a graph: what its formats, operators and their parts need."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import NodeProto

from gpt_export.artifact.onnx_model import OnnxModel, attribute
from gpt_export.artifact.releases import CONTRIB_OPERATORS, RELEASES, ContribOperator, Release, Version, first_release

CONTRIB = "com.microsoft"


def minimum_release(model: OnnxModel) -> Release | None:
    """The oldest onnxruntime that loads the model on a CPU, None if the table does not have it."""
    by_format = first_release(opset=model.opset() or 0, ir_version=model.proto.ir_version)
    needed = [by_format.number] if by_format else []
    for (domain, operator), nodes in model.operators.items():
        known = CONTRIB_OPERATORS.get(operator) if domain == CONTRIB else None
        if known is not None:
            needed += [number for each in nodes for number, _ in needs(known, each)]
    if by_format is None:
        return None
    return next(release for release in RELEASES if release.number == max(needed))


def needs(known: ContribOperator, each: NodeProto) -> Iterator[tuple[Version, str]]:
    """The releases that brought the operator, and the inputs, attributes and values that this node uses."""
    operator = each.op_type
    if known.cpu is not None:
        yield known.cpu, operator
    for index, number in (known.inputs or {}).items():
        if len(each.input) > index and each.input[index]:
            yield number, f"input {index} of {operator}"
    for name, number in (known.attributes or {}).items():
        if attribute(each, name) is not None:
            yield number, f"the attribute {name} of {operator}"
    for (name, value), number in (known.values or {}).items():
        found = attribute(each, name)
        if found is not None and found.i == value:
            yield number, f"{name}={value} of {operator}"
