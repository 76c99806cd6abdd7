"""A derived graph is its module: in pieces, at once, and beside padding. The oracle is the module's own code."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from tests.exporter.passes.cache.feeding import PADDING, PIECES, derived, logits, off

ATTENTIONS = [
    "book_gpt",  # a buffer for a mask, in every layer
    "nanogpt_manual",  # scores its last position alone
    "rope_halves",
    "rope_complex",
    "rope_matrices",
    "gqa_expand",
    "heads_in_a_list",
    "heads_folded_into_batch",
    "einsum_attention",
    "alibi_by_key",
    "t5_buckets",
    "window_alternating",
    "window_and_first_tokens",
    "speedrun_block_windows",
    "sink_learned",
    "softmax_by_hand",
    "cap_scores_and_logits",
    "differential_attention",
    "sigmoid_attention",
    "keys_shared_by_layers",
    "mla",
    "neox_parallel",
    "multihead_sequence_first",
    "transformer_encoder_mask_alone",
    "layers_without_attention",
    "moe_batched",
    "moe_loop",  # the data choose which rows an expert sees
    "moe_assigned",
    "moe_by_mask",
    "moe_first_choice",
]
LIMIT = 1e-5
"""Of the largest logit; measured 1e-7 to 6e-7, faults are 1e-2 and more."""


@pytest.mark.parametrize("name", ATTENTIONS)
def test_tokens_fed_in_pieces_have_the_logits_of_the_whole_text(name: str) -> None:
    of = derived(name)
    expected = of.eager(of.ids())
    assert off(logits(of, of.ids(), PIECES), expected) < LIMIT
    assert off(logits(of, of.ids(), [sum(PIECES)]), expected) < LIMIT


@pytest.mark.parametrize("name", ATTENTIONS)
def test_a_row_behind_padding_is_the_row_alone(name: str) -> None:
    of = derived(name)
    ids = of.ids()
    mask = np.ones_like(ids)
    mask[1, :PADDING] = 0
    found = logits(of, ids, PIECES, mask)
    assert np.isfinite(found).all()
    assert off(found[:1], of.eager(ids[:1])) < LIMIT
    assert off(found[1:, PADDING:], of.eager(ids[1:, PADDING:])) < LIMIT


@pytest.mark.parametrize("name", ["book_gpt", "rope_halves", "window_alternating", "t5_buckets"])
def test_padding_behind_a_row_changes_nothing_in_front_of_it(name: str) -> None:
    of = derived(name)
    ids = of.ids()
    mask = np.ones_like(ids)
    mask[1, -PADDING:] = 0
    found = logits(of, ids, [sum(PIECES)], mask)
    assert off(found[:, :-PADDING], of.eager(ids)[:, :-PADDING]) < LIMIT


@pytest.mark.parametrize(
    ("name", "heads", "widths"),
    [
        ("gqa_expand", 2, (8, 8)),  # four of queries
        ("heads_in_a_list", 4, (8, 8)),  # computed apart, cached together
        ("nanochat_mqa", 1, None),
        ("differential_attention", None, None),
    ],
)
def test_the_smallest_keys_and_values_are_cached(name: str, heads: int | None, widths: tuple[int, int] | None) -> None:
    of = derived(name)
    layers = of.found.layers
    past = {value.name: value for value in of.found.model.graph.inputs}
    for i, layer in enumerate(layers):
        assert heads in (None, layer.n_heads)
        assert widths in (None, (layer.key_dim, layer.value_dim))
        for kind, width in (("key", layer.key_dim), ("value", layer.value_dim)):
            shape = past[f"past_key_values.{i}.{kind}"].shape
            assert shape is not None
            assert [str(dim) for dim in shape] == ["batch_size", str(layer.n_heads), "past_sequence_length", str(width)]


def test_layers_that_share_keys_are_cached_once_or_each_but_layers_without_attention_never() -> None:
    assert len(derived("layers_without_attention").found.layers) < 4
    assert len(derived("keys_shared_by_layers").found.layers) <= 4


def text_of(model: ir.Model) -> str:
    """The graph, without the names that its constants' tensors may take from their nodes when they are read."""
    proto = ir.to_proto(model)
    for node in proto.graph.node:
        for attribute in node.attribute:
            attribute.t.ClearField("name")
    return str(proto)


def test_the_plain_graph_is_left_as_it_was() -> None:
    from gpt_export.graph.roads import build
    from gpt_export.passes.cache import derive_cache
    from gpt_export.runtime.signature import example_sizes

    of = derived("nope")
    source = of.source
    model = build(source.skeleton, source.reference, source.signature(), 18, example_sizes(64)).model
    before = text_of(model)
    derive_cache(model)
    assert text_of(model) == before
