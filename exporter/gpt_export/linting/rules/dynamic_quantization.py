"""Activations that are quantised while the model runs, by one scale for everything that is fed at once."""

from __future__ import annotations

from collections.abc import Iterator

from gpt_export.artifact.onnx_model import OnnxModel, node_name
from gpt_export.linting.finding import Finding, Severity, node
from gpt_export.linting.registry import rule
from gpt_export.linting.settings import LintSettings
from gpt_export.linting.tensors import shown

SHARED_SCALE = rule(
    "GX141",
    Severity.WARNING,
    "activations are quantised by one scale for the whole batch (DynamicQuantizeLinear in front of a product): "
    "other rows "
    "and later tokens change the logits of this one",
    "quantise the weights alone (gpt-export onnx SOURCE --precision int8), or run single rows without padding, "
    "and expect "
    "prefill and decoding to differ",
)
_PRODUCTS = ("MatMulInteger", "ConvInteger", "MatMulIntegerToFloat", "QLinearMatMul", "QGemm", "QAttention")
_BOTH = ("DynamicQuantizeMatMul", "DynamicQuantizeLSTM")
_CARRIERS = ("Reshape", "Transpose", "Identity", "Unsqueeze", "Squeeze", "Slice", "Flatten")


def dynamic_quantization(model: OnnxModel, _settings: LintSettings) -> Iterator[Finding]:
    """All such products in one finding, by the first."""
    found = [node_name(each) for graph in model.graphs for each in graph.node if each.op_type in _BOTH]
    makers = {name: each for graph in model.graphs for each in graph.node for name in each.output}
    for graph in model.graphs:
        for each in graph.node:
            if each.op_type not in _PRODUCTS:
                continue
            maker = makers.get(each.input[0])
            while maker is not None and maker.op_type in _CARRIERS:
                maker = makers.get(maker.input[0])
            if maker is not None and maker.op_type == "DynamicQuantizeLinear":
                found.append(node_name(each))
    if found:
        message = f"{len(found)} products read activations that share one scale: {shown(found)}"
        yield SHARED_SCALE.found(node(found[0]), message)
