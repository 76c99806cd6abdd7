"""Operators that the model's opsets do not have."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import defs

from gpt_export.artifact.minimum_release import CONTRIB
from gpt_export.artifact.onnx_model import OnnxModel, node_name
from gpt_export.artifact.releases import CONTRIB_OPERATORS
from gpt_export.linting.finding import FILE, Finding, Severity, node
from gpt_export.linting.registry import rule
from gpt_export.linting.settings import LintSettings

UNKNOWN = rule(
    "GX311",
    Severity.ERROR,
    "a standard operator that the model's opset does not have, or has withdrawn",
    "export at an opset that has it",
)
FOREIGN = rule(
    "GX312",
    Severity.WARNING,
    "an operator outside the standard and outside the table of onnxruntime's own: a library of kernels may be needed",
    "ship the library with the model, or export with standard operators",
)
NOT_IMPORTED = rule(
    "GX313",
    Severity.ERROR,
    "a node's domain is not among the model's opset imports",
    "add the domain and its version to opset_import",
)
NOT_CHECKED = rule(
    "GX314",
    Severity.NOTE,
    "the opset is newer than the installed onnx, so that operators were not checked",
    "install a newer onnx and run again",
)
_STANDARD = ("", "ai.onnx.ml")


def operators(model: OnnxModel, _settings: LintSettings) -> Iterator[Finding]:
    """Each operator once, by the first node that uses it."""
    if (opset := model.opset()) is not None and opset > defs.onnx_opset_version():
        message = f"the opset is {opset}; the installed onnx {onnx.__version__} knows up to {defs.onnx_opset_version()}"
        yield NOT_CHECKED.found(FILE, message)
        return
    own = {(function.domain, function.name) for function in model.proto.functions}
    for (domain, operator), nodes in model.operators.items():
        first, shown = node_name(nodes[0]), f"{domain or 'ai.onnx'}.{operator}"
        version = model.opset(domain)
        if version is None:
            yield NOT_IMPORTED.found(node(first), f"{first} is a {shown}, whose domain is not imported")
        elif (domain, operator) in own:
            continue
        elif domain in _STANDARD:
            if (fault := _fault(domain, operator, version)) is not None:
                yield UNKNOWN.found(node(first), f"{first} is a {shown}, {fault}")
        elif domain != CONTRIB or operator not in CONTRIB_OPERATORS:
            yield FOREIGN.found(node(first), f"{len(nodes)} nodes are {shown} (version {version}); first {first}")


def _fault(domain: str, operator: str, version: int) -> str | None:
    """What is wrong with a standard operator at that version, None if nothing is."""
    try:
        schema = defs.get_schema(operator, version, domain)
    except defs.SchemaError:
        return f"which opset {version} does not have"
    return f"which opset {version} has withdrawn" if schema.deprecated else None
