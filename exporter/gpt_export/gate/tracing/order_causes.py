"""Causes in how a graph is put together: a module that is fed what another one should read."""

from __future__ import annotations

from gpt_export.gate.tracing.anchors import layer_of, part_of
from gpt_export.gate.tracing.evidence import Evidence


def module_read_for(evidence: Evidence) -> str | None:
    """The other module whose input the graph feeds to the deviating one, None if it does no such thing."""
    if evidence.anchor.end != "input":
        return None
    for (module, end), values in evidence.expected.items():
        if end == "input" and module not in evidence.anchor.modules and evidence.explains(values):
            return module
    return None


def order_cause(evidence: Evidence, other: str) -> str:
    """In words, what it means that the graph feeds the deviating module what `other` should read."""
    module = evidence.module
    elsewhere = [
        anchor
        for anchor in evidence.anchors
        if anchor.end == "input" and anchor.modules[0] in (module, other) and anchor.tensor != evidence.anchor.tensor
    ]
    if any(anchor.modules[0] == module and evidence.is_right(anchor) for anchor in elsewhere):
        meaning = f"the weights of {module} are used in both places"
    elif any(anchor.modules[0] == other for anchor in elsewhere):
        meaning = "layers are in the wrong order"
    elif layer_of(other) not in (None, layer_of(module)) and part_of(other) == "norm":
        meaning = f"layer {layer_of(other)} is left out"
    else:
        meaning = f"{other} is left out"
    return f"{module} is fed what {other} should read: {meaning}"
