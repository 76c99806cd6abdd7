"""Whole layers of many dialects in onnxruntime's own operators: what they consist of, and that eager torch agrees."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from gpt_export.errors import GraphError
from gpt_export.passes import fused_passes, portable_passes, run_passes
from gpt_export.passes.certificate import check_fusions, operator_counts
from torch.nn import functional

from tests.exporter.passes.fused.decoders import CONTEXT, DIALECTS, Decoder, Norm, graph_of, seeded
from tests.exporter.passes.fused.running import FEEDS, assert_same, eager, feed, run

RMS, SKIP_RMS = "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization"
LLAMA = {
    "GroupQueryAttention": 2,
    "RotaryEmbedding": 4,
    RMS: 1,
    SKIP_RMS: 4,
    "QuickGelu": 2,
    "MatMul": 2 * 5 + 1,
    "Split": 2,
}
"""Two layers: query, key and value are one product, and the first norm has no sum in front of it."""
WANTED = {
    "llama": LLAMA,
    "interleaved": LLAMA,
    "partial": LLAMA,
    "narrow": LLAMA,
    "sinks": LLAMA,
    "biased": {**LLAMA, "MatMul": 2 * 5, "Gemm": 1},
    "normed": {**LLAMA, RMS: 1 + 4},
    "gemma": {**LLAMA, RMS: 1 + 4, "QuickGelu": 0, "FastGelu": 2},
    "alibi": {
        **LLAMA,
        "RotaryEmbedding": 0,
        "Split": 1,
    },  # a shape is read off one part of it; the operator reads the whole
    "normed_behind": {**LLAMA, "RotaryEmbedding": 0, RMS: 1 + 4, "QuickGelu": 0, "Relu": 2, "MatMul": 2 * 4 + 1},
    "neox": {"GroupQueryAttention": 2, "SkipLayerNormalization": 3, "LayerNormalization": 2, "BiasGelu": 2},
    "tiled": {"GroupQueryAttention": 0, "Softmax": 2, RMS: 1, SKIP_RMS: 4, "QuickGelu": 2},
}
SPELLED_OUT = ("ReduceMean", "Sqrt", "Reciprocal", "Erf", "Sigmoid")


@pytest.fixture(scope="module", params=DIALECTS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def decoder(name: str) -> Decoder:
    return seeded(DIALECTS[name])


@pytest.fixture(scope="module")
def fused(decoder: Decoder) -> ir.Model:
    return through_all(graph_of(decoder), decoder)


def through_all(graph: ir.Model, decoder: Decoder) -> ir.Model:
    weights = decoder.state_dict()
    return run_passes(run_passes(graph, portable_passes({key: key for key in weights})), fused_passes(weights, CONTEXT))


def test_a_layer_consists_of_these_operators(name: str, fused: ir.Model) -> None:
    counts = operator_counts(fused)
    assert {key: counts.get(key, 0) for key in WANTED[name]} == WANTED[name]
    assert not set(SPELLED_OUT) & counts.keys()
    check_fusions(fused)


@pytest.mark.parametrize("sizes", FEEDS)
def test_fused_layers_give_what_eager_torch_gives(sizes: str, decoder: Decoder, fused: ir.Model) -> None:
    given = feed(decoder, **FEEDS[sizes])
    assert_same(run(fused, decoder, given), eager(decoder, given), given)


def test_fusing_again_changes_nothing(decoder: Decoder, fused: ir.Model) -> None:
    again = run_passes(fused, fused_passes(decoder.state_dict(), CONTEXT))
    assert operator_counts(again) == operator_counts(fused)
    check_fusions(again)


@pytest.mark.parametrize("keep", [1, 3])
def test_last_logits_alone_are_those_of_the_whole(keep: int, decoder: Decoder, fused: ir.Model) -> None:
    given = feed(decoder, **FEEDS["prompt"])
    wanted = eager(decoder, given)["logits"][:, -keep:]
    found = run(fused, decoder, {**given, "num_logits_to_keep": np.array(keep)})["logits"]
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 2e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("epsilon", [1e-5, 1e-6, 1.1920929e-07])
def test_epsilon_is_found(epsilon: float) -> None:
    decoder = seeded(DIALECTS["llama"])
    for module in decoder.modules():
        if isinstance(module, Norm):
            module.eps = epsilon
    fused = through_all(graph_of(decoder), decoder)
    found = [node.attributes.get_float("epsilon", 0) for node in fused.graph if "Simplified" in node.op_type]
    assert len(found) == 5
    assert np.allclose(found, epsilon, rtol=1e-3)


def test_an_activation_that_is_none_of_these_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functional, "silu", lambda x: x * torch.sigmoid(1.3 * x))
    decoder = seeded(DIALECTS["llama"])
    counts = operator_counts(through_all(graph_of(decoder), decoder))
    assert counts["Sigmoid"] == 2
    assert "QuickGelu" not in counts


def test_a_norm_of_mean_size_is_no_rms_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_size(self: Norm, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x / (x.abs().mean(-1, keepdim=True) + self.eps)

    monkeypatch.setattr(Norm, "forward", by_size)
    decoder = seeded(DIALECTS["llama"])
    fused = through_all(graph_of(decoder), decoder)
    assert not {RMS, SKIP_RMS, "LayerNormalization"} & operator_counts(fused).keys()
    given = feed(decoder, **FEEDS["padded step"])
    assert_same(run(fused, decoder, given), eager(decoder, given), given)


def test_a_layer_that_lost_an_operator_is_an_error(fused: ir.Model) -> None:
    broken = fused.clone()
    broken.meta.update(fused.meta)
    node = next(node for node in broken.graph if "LayerNormalization" in node.op_type)
    node.op_type = "Relu"
    with pytest.raises(GraphError, match="its layers demand"):
        check_fusions(broken)
