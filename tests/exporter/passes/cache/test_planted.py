"""Faults that such a pass could make, planted into derived graphs: feeding in pieces and behind padding shows each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from tests.exporter.passes.cache.feeding import PADDING, PIECES, Derived, derived, logits, off

SEEN = 1e-3


def node_of(graph: ir.Graph, name: str) -> ir.Node:
    return next(node for node in graph if node.name == name)


def cut_above_the_rotation(graph: ir.Graph) -> None:
    """The keys of the first layer are cached as they were before they turned."""
    join = node_of(graph, "present.0.key")
    rotated = join.inputs[1]
    assert rotated is not None
    turned = rotated.producer()
    assert turned is not None
    assert turned.op_type == "Add"
    scaled = turned.inputs[0]
    raw = scaled.producer().inputs[0] if scaled is not None else None
    join.replace_input_with(1, raw)


def rows_by_slot(graph: ir.Graph) -> None:
    """Tables are read at the slots of new rows, not at their positions."""
    slots = next(node for node in graph if node.name == "cache/mask/new_slots").outputs[0]
    positions = next(value for value in graph.inputs if value.name == "position_ids")
    one = ir.node("Constant", [], attributes={"value": ir.tensor(np.array([0]))}, name="fault/axis")
    row = ir.node("Unsqueeze", [slots, one.outputs[0]], name="fault/row")
    shape = ir.node("Shape", [next(v for v in graph.inputs if v.name == "input_ids")], name="fault/shape")
    rows = ir.node("Expand", [row.outputs[0], shape.outputs[0]], name="fault/rows")
    graph.extend([one, row, shape, rows])
    for use in [use for use in positions.uses() if use.node is not rows]:
        use.node.replace_input_with(use.idx, rows.outputs[0])
    graph.sort()


def window_from_the_wrong_end(graph: ir.Graph) -> None:
    """A window keeps what it should hide: the oldest tokens instead of the newest."""
    inside = node_of(graph, "cache/mask/window")
    slots, first = inside.inputs
    inside.replace_input_with(0, first)
    inside.replace_input_with(1, slots)


def mask_of_the_new_rows_for_all(graph: ir.Graph) -> None:
    """Rows of the mask are counted from the first slot, not from behind the past."""
    rows = node_of(graph, "cache/mask/new_slots")
    slots = node_of(graph, "cache/mask/slots")
    new = ir.node("Shape", [graph.inputs[0]], attributes={"start": 1, "end": 2}, name="fault/new")
    end = ir.node("Squeeze", [new.outputs[0]], name="fault/end")
    graph.extend([new, end])
    rows.replace_input_with(0, slots.inputs[0])
    rows.replace_input_with(1, end.outputs[0])
    graph.sort()


def padding_left_visible(graph: ir.Graph) -> None:
    """Nothing hides what `attention_mask` says is padding."""
    seen = next(node for node in graph if node.name == "cache/mask/seen")
    for use in list(seen.outputs[0].uses()):
        use.node.replace_input_with(use.idx, seen.inputs[0])


def errors(of: Derived, model: ir.Model) -> tuple[float, float]:
    """In pieces, and of a row behind padding, by how much `model` differs from the module."""
    ids = of.ids()
    mask = np.ones_like(ids)
    mask[1, :PADDING] = 0
    alone = of.eager(ids[1:, PADDING:])
    return (
        off(logits(of, ids, PIECES, model=model), of.eager(ids)),
        off(logits(of, ids, PIECES, mask, model=model)[1:, PADDING:], alone),
    )


@pytest.mark.parametrize(
    ("name", "plant", "shows"),
    [
        ("rope_halves", cut_above_the_rotation, "pieces"),
        ("book_gpt", rows_by_slot, "padding"),
        ("rope_halves", rows_by_slot, "nothing"),  # a rotation by slot is right: it knows distances alone
        ("window_everywhere", window_from_the_wrong_end, "pieces"),
        ("book_gpt", mask_of_the_new_rows_for_all, "pieces"),
        ("book_gpt", padding_left_visible, "padding"),
    ],
)
def test_a_planted_fault_is_seen(name: str, plant: Callable[[ir.Graph], None], shows: str) -> None:
    of = derived(name)
    assert max(errors(of, of.found.model)) < 1e-5
    faulty = of.found.model.clone()
    plant(faulty.graph)
    pieces, padding = errors(of, faulty)
    assert (pieces > SEEN) == (shows == "pieces")
    assert (padding > SEEN) == (shows in ("pieces", "padding"))
