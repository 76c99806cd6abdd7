"""The node that stopped a graph with an error, and where in the model it stands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import onnx

from gpt_export.gate.case import Case
from gpt_export.gate.report import Deviation
from gpt_export.gate.tracing.activations import Feed, session_with_outputs
from gpt_export.gate.tracing.anchors import Anchor

_NAMED = (
    re.compile(r"while running (?P<operator>\w+) node\. Name:'(?P<name>[^']*)'"),  # it stopped
    re.compile(r"Node \((?P<name>[^)]*)\) Op \((?P<operator>\w+)\)"),  # it was not even loaded
)


def stop_of(
    error: Exception, path: Path, graph: onnx.GraphProto, anchors: Sequence[Anchor], case: Case, feed: Feed
) -> Deviation | None:
    """The failing node as a deviation without numbers; None if onnxruntime does not name it.

    The graph is run once more as it is written, because the node that onnxruntime names may be one of its own making.
    """
    try:
        session = session_with_outputs(path, [], as_written=True)
        feed(session, case, [session.get_outputs()[0].name])
    except Exception as again:  # onnxruntime's errors share no base class
        error = again
    named = next((match for pattern in _NAMED if (match := pattern.search(str(error)))), None)
    if named is None:
        return None
    found = [node for node in graph.node if (node.op_type, node.name) == (named["operator"], named["name"])]
    if not found:
        return None
    node = found[0]
    anchor = _first_behind(node, graph, anchors)
    return Deviation(
        layer=anchor.layer if anchor else None,
        part=anchor.part if anchor else "other",
        module=f"in front of {anchor.label}" if anchor else "",
        operator=node.op_type,
        tensor=node.output[0],
        shape=(),
        max_abs=1e300,
        limit=0.0,
        ratio=1e300,
        worst_index=(),
        expected=0.0,
        found=0.0,
        cause=_cause(node, graph, str(error)),
    )


def _first_behind(node: onnx.NodeProto, graph: onnx.GraphProto, anchors: Sequence[Anchor]) -> Anchor | None:
    """The first anchor that depends on the node: what the node was on its way to compute."""
    reached = set(node.output)
    for other in graph.node:
        if reached.intersection(other.input):
            reached.update(other.output)
    return next((anchor for anchor in anchors if anchor.tensor in reached), None)


def _cause(node: onnx.NodeProto, graph: onnx.GraphProto, error: str) -> str:
    status = " ".join(re.sub(r"^.*?Status Message: *", "", error, flags=re.DOTALL).split())
    # onnxruntime puts the file, line and signature of its own code in front.
    status = re.sub(r"^\S*onnxruntime\S* .*? was false\. ", "", status)[:200]
    for join in _ancestors(node, graph):
        if join.op_type == "Concat" and (axes := _growing_axes(join, graph)):
            axis = next((attribute.i for attribute in join.attribute if attribute.name == "axis"), 0)
            if axis % 4 not in axes:
                return (
                    f"past and new keys or values are joined on the wrong axis, {axis} at {join.output[0]} ({status})"
                )
    if re.search(r"broadcast|dimension|shape|bounds", status, re.IGNORECASE):
        return f"it does not run on this shape: a dim that should be dynamic is frozen ({status})"
    return f"it does not run: {status}"


def _ancestors(node: onnx.NodeProto, graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The node and those that it depends on, the nearest first."""
    wanted, found = set(node.output), []
    for other in reversed(graph.node):
        if wanted.intersection(other.output):
            wanted.update(other.input)
            found.append(other)
    return found


def _growing_axes(node: onnx.NodeProto, graph: onnx.GraphProto) -> set[int]:
    """The axes on which a past that the node reads may grow: those with a name, besides the batch."""
    return {
        axis
        for value in graph.input
        if value.name in node.input
        for axis, dim in enumerate(value.type.tensor_type.shape.dim)
        if axis and dim.dim_param
    }
