"""The derived GPT-2 graph is no heavier than the one whose cache was written by hand."""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir
from gpt_export.graph.script import script, script_cached
from gpt_export.graph.to_onnx import to_onnx
from gpt_export.passes import portable_passes, run_passes
from gpt_export.passes.cache import derive_cache
from gpt_export.runtime.signature import CacheShape, Head, cached, example_sizes, uncached
from gpt_export_models.blank import without_weights
from gpt_export_models.gpt import GPTDecoder, GPTModel

CONFIG = {
    "vocab_size": 97, "context_length": 64, "emb_dim": 32, "n_heads": 4, "n_layers": 3, "drop_rate": 0.0,
    "qkv_bias": True,
}  # fmt: skip


def finished(model: ir.Model) -> Counter[str]:
    names = {str(value.name): str(value.name) for value in model.graph.inputs}
    return Counter(
        node.op_type for node in run_passes(model, portable_passes(names)).graph if node.op_type != "Constant"
    )


def test_deriving_gives_as_few_operators_as_writing_by_hand() -> None:
    sizes = example_sizes(64)
    plain = to_onnx(script(without_weights(GPTModel(CONFIG).eval())), uncached(Head(width=97)), 18, sizes, "meta")
    shape = CacheShape.alike(n_layers=3, n_heads=4, head_dim=8)
    by_hand = to_onnx(
        script_cached(without_weights(GPTDecoder(CONFIG).eval()), 3), cached(97, shape), 18, sizes, "meta"
    )
    found = derive_cache(plain)
    assert found.layers == shape.layers
    written, derived = finished(by_hand), finished(found.model)
    assert derived.total() <= written.total()
    for op_type in ("MatMul", "Softmax", "Reshape", "LayerNormalization", "Transpose", "Add", "Mul"):
        assert derived[op_type] <= written[op_type]
