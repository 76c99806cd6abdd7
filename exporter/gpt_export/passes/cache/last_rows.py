"""A graph that scores its last position alone, made to score every one."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from gpt_export.runtime.signature import LOGITS, SEQUENCE

_SEQUENCE = 1
"""The axis of positions in (batch, sequence, width)."""


def score_every_position(model: ir.Model) -> bool:
    """Takes out of `model`, in place, the node that picks the last row in front of the logits; whether there was one.

    What lies behind it must treat rows alike; that is for whoever reads the graph next to find out.
    """
    waiting = [value for value in model.graph.outputs if value.name == LOGITS]
    behind: set[ir.Value] = set()
    while waiting:
        value = waiting.pop()
        node = value.producer()
        if node is None or value in behind:
            continue
        behind.add(value)
        if (whole := _picked_from(node)) is not None:
            ends = value.is_graph_output()
            ir.convenience.replace_all_uses_with(value, whole, replace_graph_outputs=True)
            if ends:
                whole.name, whole.type, whole.shape = LOGITS, value.type, value.shape
            for each in behind - set(model.graph.outputs):
                each.shape = None
            for scores in (each for each in model.graph.outputs if each.name == LOGITS):
                assert scores.shape is not None
                batch, _, width = scores.shape
                scores.shape = ir.Shape([batch, SEQUENCE, width])
            RemoveUnusedNodesPass()(model)
            return True
        waiting += [each for each in node.inputs if each is not None]
    return False


def _picked_from(node: ir.Node) -> ir.Value | None:
    """What `node` picks the last of all positions from; None where it does something else."""
    if node.op_type == "Gather" and node.attributes.get_int("axis", 0) == _SEQUENCE:
        return node.inputs[0] if _numbers(node, 1) == [-1] else None
    if node.op_type == "Slice" and _numbers(node, 1) == [-1] and _numbers(node, 3) == [_SEQUENCE]:
        ends = _numbers(node, 2)
        return node.inputs[0] if ends is not None and ends[0] > 2**31 else None
    return _picked_by_entry(node)


def _picked_by_entry(back: ir.Node) -> ir.Value | None:
    """The same for the form that torch.export gives `x[:, [-1]]`: GatherND between two transpositions."""
    gather = _producer(back)
    there = None if gather is None else _producer(gather)
    if gather is None or there is None or gather.op_type != "GatherND":
        return None
    swapped = all(n.op_type == "Transpose" and n.attributes.get_ints("perm") == (1, 0, 2) for n in (back, there))
    index = ir.convenience.get_const_tensor(gather.inputs[1]) if gather.inputs[1] is not None else None
    last = index is not None and index.numpy().tolist() == [[-1]] and gather.attributes.get_int("batch_dims", 0) == 0
    return there.inputs[0] if swapped and last else None


def _producer(node: ir.Node) -> ir.Node | None:
    value = node.inputs[0] if node.inputs else None
    return None if value is None else value.producer()


def _numbers(node: ir.Node, index: int) -> list[int] | None:
    value = node.inputs[index] if len(node.inputs) > index else None
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None or tensor.numpy().ndim != 1 else [int(number) for number in tensor.numpy()]
