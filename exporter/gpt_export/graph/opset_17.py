"""A graph of opset 18 as one of opset 17, where that has the same operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx
import onnx_ir as ir

from gpt_export.errors import GraphError

OLDER = 17


def lower_opset(model: ir.Model) -> None:
    """Changes `model` from opset 18 to 17: what 18 says by an input, 17 says by an attribute.

    Raises:
        GraphError: an operator is new in opset 18, or takes an input there that 17 must know beforehand.
    """
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.domain not in ("", "ai.onnx") or onnx.defs.get_schema(node.op_type, 18).since_version < 18:
            continue
        rewrite = _REWRITES.get(node.op_type)
        if rewrite is None or not rewrite(node):
            raise GraphError(f"{node.op_type} of opset 18 has no form in opset {OLDER}; choose opset 18")
    model.graph.opset_imports[""] = OLDER


def _axes_to_attribute(node: ir.Node) -> bool:
    """Reduction axes, an input since 18."""
    axes = node.inputs[1] if len(node.inputs) > 1 else None
    if axes is None:
        return node.attributes.get_int("noop_with_empty_axes", 0) == 0
    known = ir.convenience.get_const_tensor(axes)
    if known is None:
        return False
    node.resize_inputs(1)
    node.attributes.pop("noop_with_empty_axes", None)
    node.attributes["axes"] = ir.AttrInt64s("axes", [int(axis) for axis in known.numpy().ravel()])
    return True


def _equal_split(node: ir.Node) -> bool:
    """A split into equal parts: 17 counts the outputs, 18 has their number too."""
    parts = node.attributes.get_int("num_outputs", None)
    axis = node.attributes.get_int("axis", 0)
    data = node.inputs[0]
    if parts is None:
        return True  # the sizes are an input in both
    size = None if data is None or data.shape is None else data.shape[axis]
    if not isinstance(size, int) or size % parts:
        return False
    node.attributes.pop("num_outputs")
    return True


def _plain_pad(node: ir.Node) -> bool:
    """A pad of all axes; 18 may name some."""
    return len(node.inputs) < 4 or node.inputs[3] is None


def _without_reduction(node: ir.Node) -> bool:
    """A scatter that adds, multiplies or writes, as 17 can."""
    return node.attributes.get_string("reduction", "none") in ("none", "add", "mul")


_REWRITES: Mapping[str, Callable[[ir.Node], bool]] = {
    **{
        f"Reduce{kind}": _axes_to_attribute
        for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
    },
    "Split": _equal_split,
    "Pad": _plain_pad,
    "ScatterElements": _without_reduction,
    "ScatterND": _without_reduction,
}
