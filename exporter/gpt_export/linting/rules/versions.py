"""Formats and operators that a named onnxruntime does not load yet."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import NodeProto

from gpt_export.artifact.minimum_release import CONTRIB, needs
from gpt_export.artifact.onnx_model import OnnxModel, node_name
from gpt_export.artifact.releases import CONTRIB_OPERATORS, RELEASES, ContribOperator, Release
from gpt_export.linting.finding import FILE, Finding, Severity, node
from gpt_export.linting.registry import rule
from gpt_export.linting.settings import LintSettings

OPSET = rule(
    "GX301",
    Severity.ERROR,
    "the opset is newer than the onnxruntime named by --target-ort",
    "export at a lower opset, convert with onnx.version_converter, or use a newer onnxruntime",
)
IR_VERSION = rule(
    "GX302",
    Severity.ERROR,
    "the IR version is newer than the onnxruntime named by --target-ort",
    "set model.ir_version lower when saving (onnx.helper.make_model_gen_version picks a fitting one)",
)
CONTRIB_TOO_NEW = rule(
    "GX303",
    Severity.ERROR,
    "a com.microsoft operator, or a part of it, came after the onnxruntime named by --target-ort",
    "use a newer onnxruntime, or export with standard operators alone",
)
NO_CPU_KERNEL = rule(
    "GX304",
    Severity.WARNING,
    "a com.microsoft operator that onnxruntime has for accelerators alone",
    "export for the CPU, or load with the execution provider that has it",
)


def versions(model: OnnxModel, settings: LintSettings) -> Iterator[Finding]:
    """What the target does not load, if there is a target; and what no CPU runs."""
    target, opset = settings.target, model.opset()
    if target and opset is not None and opset > target.opset:
        yield OPSET.found(FILE, f"the opset is {opset}; onnxruntime {target.version} loads up to {target.opset}")
    if target and model.proto.ir_version > target.ir_version:
        message = (
            f"the IR version is {model.proto.ir_version}; onnxruntime {target.version} loads up to {target.ir_version}"
        )
        yield IR_VERSION.found(FILE, message)
    for (domain, operator), nodes in model.operators.items():
        known = CONTRIB_OPERATORS.get(operator) if domain == CONTRIB else None
        if known is None:
            continue
        if known.cpu is None:
            message = f"{len(nodes)} {operator} have no CPU kernel in any onnxruntime to {RELEASES[-1].version}"
            yield NO_CPU_KERNEL.found(node(node_name(nodes[0])), message)
        elif target:
            yield from _too_new(known, nodes, target)


def _too_new(known: ContribOperator, nodes: list[NodeProto], target: Release) -> Iterator[Finding]:
    """One finding for each operator: its most demanding node speaks for all."""
    late = [(number, what, each) for each in nodes for number, what in needs(known, each) if number > target.number]
    if late:
        number, what, each = max(late, key=lambda entry: entry[0])
        has_it = ".".join(map(str, number))
        message = f"{what} is in onnxruntime from {has_it} on, the target is {target.version}; {len(nodes)} nodes"
        yield CONTRIB_TOO_NEW.found(node(node_name(each)), message)
