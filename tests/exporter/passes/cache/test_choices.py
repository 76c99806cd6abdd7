"""Rows that the data choose keep tokens apart only if each returns to where it came from; anything else is refused.

What is right is tried on whole decoders in test_derived.py (`moe_loop` and its kin).
"""

from __future__ import annotations

import onnx
import pytest
from gpt_export.passes.cache import CacheRefusedError, derive_cache
from onnx import helper

from tests.exporter.passes.cache.test_refusals import graph, lookup

node = helper.make_node
CHOICE = [
    lookup(),
    node("Constant", [], ["zero"], value_float=0.0),
    node("Constant", [], ["one"], value_int=1),
    node("Constant", [], ["last_axis"], value_ints=[-1]),
    node("ReduceSum", ["x", "last_axis"], ["sums"], keepdims=0),
    node("Greater", ["sums", "zero"], ["mask"]),
    node("NonZero", ["mask"], ["found"]),
    node("Transpose", ["found"], ["places"], perm=[1, 0]),
    node("GatherND", ["x", "places"], ["rows"], "take"),
]
"""`rows` (chosen, 7) of `x` at the `places` (chosen, 2) where its sum is positive."""
OTHER_CHOICE = [
    node("Less", ["sums", "zero"], ["other_mask"]),
    node("NonZero", ["other_mask"], ["other_found"]),
    node("Transpose", ["other_found"], ["other_places"], perm=[1, 0]),
]


BY_FEATURE = [
    node("Greater", ["x", "zero"], ["entries"]),
    node("NonZero", ["entries"], ["found_entries"]),
    node("Transpose", ["found_entries"], ["entry_places"], perm=[1, 0]),
    node("GatherND", ["x", "entry_places"], ["values"]),
    node("Constant", [], ["two"], value_ints=[2]),
    node("Gather", ["found_entries", "two"], ["feature_row"], axis=0),
    node("Transpose", ["feature_row"], ["features"], perm=[1, 0]),
]
"""`values` (chosen) of all entries of `x` that are positive, and their `features` (chosen, 1)."""


def refusal(*nodes: onnx.NodeProto) -> str:
    """Why no cache is derived from a graph that chooses rows and goes on with `nodes`."""
    *_, last = nodes
    out = [] if last.output[0] == "logits" else [node("Identity", last.output, ["logits"])]
    with pytest.raises(CacheRefusedError) as refused:
        derive_cache(graph([*CHOICE, *nodes, *out], {"emb": (5, 7), "table": (9, 7), "bias": (7,)}))
    return str(refused.value)


def test_features_of_chosen_entries_may_be_looked_up_in_a_table_of_weights() -> None:
    look = [node("GatherND", ["bias", "features"], ["told"]), node("Mul", ["values", "told"], ["scaled"])]
    put = node("ScatterND", ["x", "entry_places", "scaled"], ["logits"], "put")
    assert "no operator of the graph looks at other positions" in refusal(*BY_FEATURE, *look, put)


def test_rows_that_return_to_their_places_are_no_reason_to_refuse() -> None:
    put = node("ScatterND", ["x", "places", "rows"], ["logits"], "put")
    assert "no operator of the graph looks at other positions" in refusal(put)


@pytest.mark.parametrize(
    ("nodes", "sentence"),
    [
        (
            [node("Add", ["places", "one"], ["next"]), node("ScatterND", ["x", "next", "rows"], ["logits"], "put")],
            "ScatterND put puts entries by other places, or others, than the ids choose",
        ),
        (
            [*OTHER_CHOICE, node("ScatterND", ["x", "other_places", "rows"], ["logits"], "put")],
            "ScatterND put puts entries by other places, or others, than the ids choose",
        ),
        (
            [*BY_FEATURE, node("ScatterND", ["bias", "features", "values"], ["tally"], "tally", reduction="add")],
            "ScatterND tally puts entries by other places, or others, than the ids choose",
        ),
        (
            [
                *BY_FEATURE,
                node("Transpose", ["x"], ["by_feature"], perm=[2, 0, 1]),
                node("GatherND", ["by_feature", "features"], ["others"], "pick"),
            ],
            "GatherND pick takes entries by other places than those of what the ids choose",
        ),
        (
            [node("Add", ["places", "one"], ["next"]), node("GatherND", ["x", "next"], ["late"], "late")],
            "GatherND late takes entries by other places than those of what the ids choose",
        ),
        (
            [
                node("Gather", ["found", "one"], ["at"], axis=0),
                node("Gather", ["table", "at"], ["told"], "look_up_places"),
            ],
            "Gather look_up_places takes entries by other places than those of what the ids choose",
        ),
        (
            [
                node("Cast", ["places"], ["numbers"], to=1),
                node("ReduceSum", ["numbers", "last_axis"], ["slots"]),
                node("Add", ["rows", "slots"], ["told"], "tell"),
            ],
            "Add tell computes with the places of what the ids choose",
        ),
        (
            [node("ReduceMean", ["rows"], ["mean"], "average", axes=[0])],
            "ReduceMean average works along what the ids choose",
        ),
        (
            [node("Identity", ["places"], ["logits"], "tell")],
            "Identity tell gives the places of what the ids choose",
        ),
    ],
    ids=[
        *("put_one_later", "put_elsewhere", "put_by_feature", "taken_by_feature", "taken_one_later", "table_of_places"),
        *("numbers", "averaged", "given"),
    ],
)  # fmt: skip
def test_what_tells_places_or_mixes_rows_is_refused_by_name(nodes: list[onnx.NodeProto], sentence: str) -> None:
    assert sentence in refusal(*nodes)
