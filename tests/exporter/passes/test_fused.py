"""The passes to onnxruntime's own operators: what the graph is made of afterwards, and that it gives the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from gpt_export.errors import GraphError
from gpt_export.passes import fused_passes, half_passes, quantizing_passes, run_passes
from gpt_export.passes.certificate import check_fusions, operator_counts
from gpt_export.passes.fused.activations import FuseActivations
from gpt_export.passes.fused.grouped_attention import FuseGroupedAttention
from gpt_export.passes.fused.last_logits import KeepLastLogits
from gpt_export.passes.fused.pack_projections import PackProjections
from gpt_export.passes.fused.skip_norm import FuseSkipNorms
from gpt_export.pipeline.config import ExportConfig
from gpt_export.pipeline.graphs import build_graph
from gpt_export.runtime.options import session_options
from gpt_export.runtime.session import may_saturate
from gpt_export.sources.source import Source
from gpt_export.weights.layout import layout_of
from gpt_export.weights.onnx_file import write_onnx
from gpt_export.weights.quantize.schemes import PLANS
from gpt_export.weights.quantize.weights import QuantizedWeights
from gpt_export_models.config import GPTConfig
from onnx_ir.passes.common import RemoveUnusedNodesPass

from tests.mutations.good import random_source

BOOK = GPTConfig(
    vocab_size=97,
    context_length=24,
    emb_dim=32,
    n_heads=4,
    n_layers=2,
    drop_rate=0.0,
    qkv_bias=True,
    tied_head=True,
)
BARE = replace(
    BOOK,
    qkv_bias=False,
    linear_bias=False,
    norm_bias=False,
    activation="gelu_erf",
    tied_head=False,
    emb_dim=40,
    n_heads=5,
)
CONFIGS = {"book": BOOK, "bare": BARE}
SPREAD = 0.3
BATCH, PAST, NEW = 2, 5, 1


@pytest.fixture(scope="module", params=CONFIGS)
def source(request: pytest.FixtureRequest) -> Source:
    return random_source(CONFIGS[request.param], SPREAD, seed=3)


@pytest.fixture(scope="module")
def portable(source: Source) -> ir.Model:
    return build_graph(source, ExportConfig(profile="portable"))


def inputs(source: Source, *, past: int, new: int) -> dict[str, np.ndarray]:
    """Two rows of random ids over a random past, the second one with padding in front."""
    rng = np.random.default_rng(11)
    assert source.cache is not None
    mask = np.ones((BATCH, past + new), np.int64)
    mask[1, :2] = 0
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    shapes = {name: (b, h, past, d) for name, (b, h, _, d) in source.cache.empty_shapes(BATCH).items()}
    cache = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    ids = rng.integers(0, source.vocab_size, (BATCH, new))
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions[:, past:], **cache}


def run(model: ir.Model, source: Source, folder: Path, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every output of `model`, with the source's weights put in."""
    layouts = [layout for value in model.graph.inputs if (layout := layout_of(value))]
    path = folder / "model.onnx"
    write_onnx(model, QuantizedWeights(source.weights, layouts), source.signature(), path, cache=source.cache)
    options = session_options(saturating=may_saturate())  # else int8 is another function on processors without VNNI
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    half = session.get_inputs()[3].type == "tensor(float16)"
    fed = {
        name: array.astype(np.float16) if half and name.startswith("past") else array for name, array in feed.items()
    }
    return dict(zip([out.name for out in session.get_outputs()], session.run(None, fed), strict=True))


def assert_same(
    found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray], feed: Mapping[str, np.ndarray], within: float
) -> None:
    """Logits and cache are the same where there is no padding, relative to the largest number."""
    assert list(found) == list(wanted)
    mask = feed["attention_mask"].astype(bool)
    for name, array in wanted.items():
        error = np.abs(found[name].astype(np.float32) - array)
        error = error[mask[:, -array.shape[1] :]] if name == "logits" else error.transpose(0, 2, 1, 3)[mask]
        error = error.max()
        assert error <= within * np.abs(array).max(), name


FEEDS = {"prompt": {"past": 0, "new": 6}, "step": {"past": PAST, "new": NEW}}


@pytest.mark.parametrize("feed", FEEDS)
def test_every_fused_pass_leaves_the_outputs_as_they_are(
    feed: str, source: Source, portable: ir.Model, tmp_path: Path
) -> None:
    assert source.cache is not None
    given = inputs(source, **FEEDS[feed])
    wanted = run(portable, source, tmp_path, given)
    passes = fused_passes(source.weights, source.context_length)
    for count in range(1, len(passes) + 1):
        found = run(run_passes(portable, passes[:count]), source, tmp_path, given)
        assert_same(found, wanted, given, 1e-5)


def test_packing_leaves_one_product_and_one_bias_for_three(source: Source, portable: ir.Model) -> None:
    assert source.cache is not None
    before = operator_counts(portable)
    packed = run_passes(portable, [PackProjections()])
    after = operator_counts(packed)
    layers = source.cache.n_layers
    biases = 2 * layers if source.configuration.get("qkv_bias") else 0
    assert before["MatMul"] - after["MatMul"] == 2 * layers
    assert before["Add"] - after["Add"] == biases
    assert after["Split"] == layers
    sources = [layout.sources for value in packed.graph.inputs if (layout := layout_of(value)) and "+" in value.name]
    kinds = ("weight", "bias") if biases else ("weight",)
    assert sources == [
        tuple(f"trf_blocks.{layer}.att.W_{each}.{kind}" for each in ("query", "key", "value"))
        for layer in range(layers)
        for kind in kinds
    ]


def test_attention_becomes_one_operator_a_layer_and_the_causal_mask_goes(source: Source, portable: ir.Model) -> None:
    assert source.cache is not None
    fused = run_passes(
        portable,
        [PackProjections(), FuseGroupedAttention(source.weights, source.context_length), RemoveUnusedNodesPass()],
    )
    counts = operator_counts(fused)
    assert counts["GroupQueryAttention"] == source.cache.n_layers
    assert not {"Softmax", "Split", "Transpose", "Where", "Range"} & counts.keys()


def test_gelu_becomes_one_operator_with_its_bias(source: Source, portable: ir.Model) -> None:
    assert source.cache is not None
    fused = run_passes(portable, [FuseActivations(source.weights), RemoveUnusedNodesPass()])
    bare = not source.configuration.get("linear_bias", True)
    nodes = [node for node in fused.graph if node.op_type in ("FastGelu", "BiasGelu", "Gelu")]
    assert [node.op_type for node in nodes] == ["Gelu" if bare else "FastGelu"] * source.cache.n_layers
    assert all(len(node.inputs) == (1 if bare else 2) for node in nodes)
    assert not {"Tanh", "Erf"} & operator_counts(fused).keys()


def test_every_norm_takes_the_sum_in_front_of_it_along(source: Source, portable: ir.Model) -> None:
    assert source.cache is not None
    counts = operator_counts(run_passes(portable, [FuseSkipNorms(source.weights), RemoveUnusedNodesPass()]))
    assert counts["SkipLayerNormalization"] == 2 * source.cache.n_layers + 1
    assert "LayerNormalization" not in counts


@pytest.mark.parametrize(("keep", "kept"), [(None, 6), (0, 6), (1, 1), (4, 4), (6, 6), (9, 6)])
def test_logits_are_of_as_many_last_positions_as_asked_for(
    keep: int | None, kept: int, source: Source, portable: ir.Model, tmp_path: Path
) -> None:
    given = inputs(source, past=0, new=6)
    wanted = run(portable, source, tmp_path, given)["logits"]
    model = run_passes(portable, [KeepLastLogits()])
    asked = {} if keep is None else {"num_logits_to_keep": np.array(keep, np.int64)}
    found = run(model, source, tmp_path, given | asked)["logits"]
    assert found.shape[1] == kept
    assert np.allclose(found, wanted[:, -kept:], rtol=0, atol=1e-5 * np.abs(wanted).max())
    names = [value.name for value in ort.InferenceSession(str(tmp_path / "model.onnx")).get_inputs()]
    assert "num_logits_to_keep" not in names


def test_the_graph_given_to_fused_passes_stays_as_it_was(source: Source, portable: ir.Model) -> None:
    assert source.cache is not None
    before = ir.to_proto(portable).SerializeToString(deterministic=True)
    run_passes(portable, fused_passes(source.weights, source.context_length))
    assert ir.to_proto(portable).SerializeToString(deterministic=True) == before


def test_a_fused_graph_has_nothing_left_to_fuse(source: Source, portable: ir.Model) -> None:
    assert source.cache is not None
    once = run_passes(portable, fused_passes(source.weights, source.context_length))
    again = fused_passes(source.weights, source.context_length)
    assert operator_counts(run_passes(once, again)) == operator_counts(once)


# fp16 computes with 11 bits. Spread 0.3 makes logits that quantising moves by the shares allowed here; a wrong zero
# point, scale or nibble moves them by as much as they are large.
ALLOWED = {"fp16": 0.01, "int8": 0.05, "int4": 0.5}


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize("precision", ALLOWED)
def test_fewer_bits_stay_near(precision: str, feed: str, source: Source, portable: ir.Model, tmp_path: Path) -> None:
    assert source.cache is not None
    given = inputs(source, **FEEDS[feed])
    wanted = run(portable, source, tmp_path, given)
    passes = half_passes() if precision == "fp16" else quantizing_passes(PLANS[precision])  # type: ignore[index]
    model = run_passes(run_passes(portable, fused_passes(source.weights, source.context_length)), passes)
    assert_same(run(model, source, tmp_path, given), wanted, given, ALLOWED[precision])


def test_int4_has_no_product_with_a_float_weight(source: Source, portable: ir.Model) -> None:
    assert source.cache is not None
    fused = run_passes(portable, fused_passes(source.weights, source.context_length))
    counts = operator_counts(run_passes(fused, quantizing_passes(PLANS["int4"])))
    assert counts["MatMulNBits"] == 4 * source.cache.n_layers + 1
    assert counts["GatherBlockQuantized"] == 1
    assert not {"MatMul", "Gemm"} & counts.keys()


def test_a_tied_embedding_is_stored_once(portable: ir.Model, source: Source) -> None:
    assert source.cache is not None
    fused = run_passes(portable, fused_passes(source.weights, source.context_length))
    model = run_passes(fused, quantizing_passes(PLANS["int4"]))
    tables = [
        value for value in model.graph.inputs if str(value.name) in ("tok_emb.weight.codes", "out_head.weight.codes")
    ]
    readers = Counter(node.op_type for value in tables for node, _ in value.uses())
    assert len(tables) == (1 if source.configuration.get("tied_head") else 2)
    assert readers == {"MatMulNBits": 1, "Reshape": 1}


def test_a_layer_that_is_not_what_was_found_is_an_error(source: Source, portable: ir.Model) -> None:
    fused = run_passes(portable, fused_passes(source.weights, source.context_length))
    check_fusions(fused)
    node = next(node for node in fused.graph if node.op_type == "GroupQueryAttention")
    node.attributes["scale"] = ir.AttrFloat32("scale", 0.5)
    with pytest.raises(GraphError, match="layer 0 attends with"):
        check_fusions(fused)
    node = next(node for node in fused.graph if node.op_type == "SkipLayerNormalization")
    node.op_type = "Softmax"
    with pytest.raises(GraphError, match="its layers demand"):
        check_fusions(fused)


def test_a_token_of_zeros_stays_one_in_int8(tmp_path: Path) -> None:
    blank = random_source(replace(BOOK, tied_head=False, norm_bias=False), SPREAD, seed=3)
    for layer in range(BOOK.n_layers):
        blank.weights[f"trf_blocks.{layer}.norm1.scale"].zero_()
    given = inputs(blank, past=0, new=6)
    wanted = run(build_graph(blank, ExportConfig(profile="portable")), blank, tmp_path, given)
    assert blank.cache is not None
    fused = run_passes(
        build_graph(blank, ExportConfig(profile="portable")), fused_passes(blank.weights, blank.context_length)
    )
    model = run_passes(fused, quantizing_passes(PLANS["int8"]))
    assert_same(run(model, blank, tmp_path, given), wanted, given, ALLOWED["int8"])
