"""Attention of many dialects as GroupQueryAttention: which facts are found, and that eager torch gives the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import onnx_ir as ir
import pytest
import torch
from gpt_export.passes import portable_passes, run_passes
from gpt_export.passes.certificate import operator_counts
from gpt_export.passes.fused.facts import attention_facts
from gpt_export.passes.fused.grouped_attention import FuseGroupedAttention
from onnx_ir.passes.common import RemoveUnusedNodesPass

from tests.exporter.passes.fused.decoders import CONTEXT, DIALECTS, Decoder, graph_of, seeded
from tests.exporter.passes.fused.running import FEEDS, assert_same, eager, feed, run

PLAIN = {"tiled"}
WANTED: Mapping[str, tuple[Mapping[str, object], ...]] = {
    "llama": ({"kv_heads": 2, "turned": "halves", "rotated": 16, "scale": 0.25},),
    "interleaved": ({"turned": "interleaved", "rotated": 16},),
    "partial": ({"turned": "halves", "rotated": 16, "head_dim": 32},),
    "gemma": ({"cap": 5.0, "window": 4, "scale": 0.1}, {"cap": 5.0, "window": 0, "scale": 0.1}),
    "alibi": ({"bias": "slopes", "turned": "not"},),
    "sinks": ({"sinks": True, "window": 0}, {"sinks": True, "window": 5}),
    "normed": ({"turned": "halves"},),
    "normed_behind": ({"turned": "in front"},),
    "neox": ({"heads": 4, "kv_heads": 4, "turned": "halves"},),
    "narrow": ({"turned": "halves", "rotated": 8},),
    "biased": ({"turned": "halves"},),
}


@pytest.fixture(scope="module", params=DIALECTS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def decoder(name: str) -> Decoder:
    return seeded(DIALECTS[name])


@pytest.fixture(scope="module")
def plain(decoder: Decoder) -> ir.Model:
    return run_passes(graph_of(decoder), portable_passes({key: key for key in decoder.state_dict()}))


@pytest.fixture(scope="module")
def fused(plain: ir.Model, decoder: Decoder) -> ir.Model:
    return run_passes(plain, [FuseGroupedAttention(decoder.state_dict(), CONTEXT), RemoveUnusedNodesPass()])


def test_every_layer_is_one_operator_with_its_facts(name: str, fused: ir.Model, decoder: Decoder) -> None:
    facts = attention_facts(fused)
    assert [each.layer for each in facts] == list(range(decoder.dialect.layers))
    counts = operator_counts(fused)
    if name in PLAIN:
        assert all("another order" in str(each.plain) for each in facts)
        assert counts["Softmax"] == decoder.dialect.layers
        return
    assert [each.plain for each in facts] == [None] * decoder.dialect.layers
    assert counts["GroupQueryAttention"] == decoder.dialect.layers
    assert "Softmax" not in counts
    wanted = WANTED[name]
    for each in facts:
        for key, value in wanted[each.layer % len(wanted)].items():
            assert getattr(each, key) == value, key


@pytest.mark.parametrize("sizes", FEEDS)
def test_it_gives_what_eager_torch_gives(sizes: str, decoder: Decoder, fused: ir.Model, plain: ir.Model) -> None:
    given = feed(decoder, **FEEDS[sizes])
    wanted = eager(decoder, given)
    assert_same(run(plain, decoder, given), wanted, given)
    assert_same(run(fused, decoder, given), wanted, given)


def test_the_graph_given_stays_as_it_was(plain: ir.Model, decoder: Decoder) -> None:
    before = ir.to_proto(plain).SerializeToString(deterministic=True)
    run_passes(plain, [FuseGroupedAttention(decoder.state_dict(), CONTEXT)])
    assert ir.to_proto(plain).SerializeToString(deterministic=True) == before


def test_a_second_run_changes_nothing(fused: ir.Model, decoder: Decoder) -> None:
    again = run_passes(fused, [FuseGroupedAttention(decoder.state_dict(), CONTEXT), RemoveUnusedNodesPass()])
    assert operator_counts(again) == operator_counts(fused)
    assert attention_facts(again) == attention_facts(fused)


def test_what_torch_export_writes_is_found_as_well() -> None:
    decoder = seeded(replace(DIALECTS["gemma"], sinks=True))
    plain = run_passes(graph_of(decoder, exported=True), portable_passes({key: key for key in decoder.state_dict()}))
    fused = run_passes(plain, [FuseGroupedAttention(decoder.state_dict(), CONTEXT), RemoveUnusedNodesPass()])
    assert [(each.window, each.cap, each.sinks) for each in attention_facts(fused)] == [(4, 5.0, True), (0, 5.0, True)]
    given = feed(decoder, **FEEDS["padded step"])
    assert_same(run(fused, decoder, given), eager(decoder, given), given)


@pytest.mark.parametrize("weight", ["blocks.0.attention.sinks"])
def test_sinks_stay_weights_of_the_file(weight: str) -> None:
    decoder = seeded(DIALECTS["sinks"])
    plain = run_passes(graph_of(decoder), portable_passes({key: key for key in decoder.state_dict()}))
    fused = run_passes(plain, [FuseGroupedAttention(decoder.state_dict(), CONTEXT), RemoveUnusedNodesPass()])
    value = next(value for value in fused.graph.inputs if value.name == weight)
    assert [node.op_type for node, _ in value.uses()] == ["GroupQueryAttention"]


def test_a_mask_that_is_no_window_keeps_its_own_bias() -> None:
    """A buffer that hides every third distance: neither causal alone nor a window."""
    decoder = seeded(DIALECTS["llama"])
    columns = torch.arange(CONTEXT)
    holes = (columns[:, None] - columns[None]) % 3 == 1
    for block in decoder.blocks:
        block.attention.register_buffer("holes", holes)
    plain = run_passes(graph_of(decoder), portable_passes({key: key for key in decoder.state_dict()}))
    fused = run_passes(plain, [FuseGroupedAttention(decoder.state_dict(), CONTEXT), RemoveUnusedNodesPass()])
    assert [(each.plain, each.bias) for each in attention_facts(fused)] == [(None, "other")] * 2
    given = feed(decoder, **FEEDS["padded step"])
    assert_same(run(fused, decoder, given), eager(decoder, given), given)


def test_facts_that_are_wrong_do_not_pass_the_comparison(plain: ir.Model, decoder: Decoder, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """The negative control: a reading with another scale is noticed, and the layer stays."""
    from gpt_export.passes.fused import attention_reading

    found = attention_reading.find_scores
    monkeypatch.setattr(attention_reading, "find_scores", lambda *given: replace(found(*given), scale=0.3))
    fused = run_passes(plain, [FuseGroupedAttention(decoder.state_dict(), CONTEXT), RemoveUnusedNodesPass()])
    assert all(each.plain is not None for each in attention_facts(fused))
