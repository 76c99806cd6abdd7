"""Graphs of small modules by either road, and plain onnxruntime on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from gpt_export.graph.script import script
from gpt_export.graph.to_onnx import to_onnx
from gpt_export.graph.torch_export import export_to_onnx
from gpt_export.runtime.signature import Head, example_sizes, uncached
from gpt_export.weights.layout import layout_of
from gpt_export.weights.numbers import laid_out
from gpt_export_models.blank import without_weights
from numpy.typing import NDArray
from torch import nn

from tests import samples


def exported(module: nn.Module, opset: int = 18, *, meta: bool = True, vocab: int = samples.VOCAB) -> ir.Model:
    sizes = example_sizes(samples.CONTEXT)
    skeleton, device = (without_weights(module), "meta") if meta else (module, "cpu")
    return export_to_onnx(skeleton, uncached(Head(width=vocab)), opset, sizes, device, samples.CONTEXT)


def scripted(module: nn.Module, opset: int = 18, *, meta: bool = True) -> ir.Model:
    sizes = example_sizes(samples.CONTEXT)
    skeleton, device = (without_weights(module), "meta") if meta else (module, "cpu")
    return to_onnx(script(skeleton), uncached(Head(width=samples.VOCAB)), opset, sizes, device)


def with_weights(model: ir.Model, module: nn.Module) -> bytes:
    """The model as a file, its weight inputs filled from `module` by their layouts."""
    tensors: dict[str, Any] = {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
    model = model.clone()
    for value in list(model.graph.inputs):
        if (layout := layout_of(value)) is not None:
            value.const_value = ir.tensor(laid_out(layout, tensors), name=value.name)
            model.graph.inputs.remove(value)
            model.graph.register_initializer(value)
    return ir.to_proto(model).SerializeToString()


def logits_of(model: ir.Model, module: nn.Module, shapes: list[tuple[int, int]]) -> list[NDArray[np.float32]]:
    session = ort.InferenceSession(with_weights(model, module))
    return [session.run(None, {"input_ids": samples.random_ids(*shape)})[0] for shape in shapes]
