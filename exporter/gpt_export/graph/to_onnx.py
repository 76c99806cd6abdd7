"""ScriptModule to ONNX graph without weights.

The weights are inputs of the graph behind those of the signature, named as in the module. They become initializers
when the artifact is staged, so the exporter never holds them.
"""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Mapping

import onnx
import onnx_ir as ir
import torch

from gpt_export.errors import ConfigError, GraphError
from gpt_export.graph.opsets import check_opset
from gpt_export.graph.scopes import name_lists
from gpt_export.graph.script import example_run_skipped, graph_dumps_logged, reason
from gpt_export.graph.silence import silence
from gpt_export.graph.widen import widen_halves
from gpt_export.runtime.signature import Dim, Signature, TensorSpec
from gpt_export.weights.layout import Layout, set_layout

logger = logging.getLogger(__name__)

_exporting = threading.RLock()
"""torch's functions are exchanged while it exports, for every thread."""
_ELEMENT_TYPES = {"int64": ir.DataType.INT64, "float32": ir.DataType.FLOAT}


def to_onnx(
    scripted: torch.jit.ScriptModule, signature: Signature, opset: int, sizes: Mapping[str, int], device: str
) -> ir.Model:
    """The graph of `scripted`: first the signature's inputs, then one input for each parameter and buffer.

    Each of the latter has its `Layout` (`gpt_export.weights.layout`).

    Args:
        sizes: of the dims that vary, in an example; small.
        device: where the module's weights are; "meta" for a module without.

    Raises:
        ConfigError: the opset is not supported.
        GraphError: an operator has no ONNX form, or the result has other inputs than the signature.
    """
    buffer = io.BytesIO()
    examples, outputs = (
        tuple(torch.zeros(spec.shape(sizes), dtype=getattr(torch, spec.dtype), device=device) for spec in specs)
        for specs in (signature.inputs, signature.outputs)
    )
    try:
        with _exporting, silence(), graph_dumps_logged(), example_run_skipped(outputs), torch.no_grad():
            torch.onnx.export(
                scripted,
                examples,
                buffer,  # type: ignore[arg-type]  # annotated for paths, documented for buffers too
                dynamo=False,
                export_params=False,
                keep_initializers_as_inputs=True,
                do_constant_folding=False,
                opset_version=check_opset(opset),
                input_names=[spec.name for spec in signature.inputs],
                output_names=[spec.name for spec in signature.outputs],
                dynamic_axes={spec.name: spec.dynamic_axes() for spec in (*signature.inputs, *signature.outputs)},
            )
    except ConfigError:
        raise
    except Exception as error:  # torch.onnx raises RuntimeError, its own tree and internal types
        raise GraphError(
            f"the scripted module does not become an ONNX graph: {reason(error)}; "
            "write that part with operators that ONNX has"
        ) from error
    model = _read(buffer.getvalue())
    name_lists(model, scripted)
    apply_signature(model.graph, signature)
    for value in model.graph.inputs[len(signature.inputs) :]:
        set_layout(value, Layout.of(str(value.name)))
    logger.info("exported %d nodes at opset %d", len(model.graph), opset)
    return model


def _read(serialized: bytes) -> ir.Model:
    try:
        return ir.from_proto(onnx.load_from_string(serialized))
    except Exception as error:  # a list of tensors that grows in a loop, whose type torch writes in part
        raise GraphError(
            "the scripted module becomes a graph that is not valid ONNX; stack tensors in place of lists that grow in "
            "a loop"
        ) from error


def apply_signature(graph: ir.Graph, signature: Signature) -> None:
    """Gives the inputs and outputs of `graph` the dims that the signature names, and its 16-bit floats 32 bits.

    Raises:
        GraphError: they have other names, element types or numbers of axes than the signature.
    """
    widen_halves(graph)
    for values, specs, what in (
        (graph.inputs[: len(signature.inputs)], signature.inputs, "inputs"),
        (graph.outputs, signature.outputs, "outputs"),
    ):
        names = [value.name for value in values]
        if names != [spec.name for spec in specs]:
            raise GraphError(f"the graph has the {what} {names}, not {[spec.name for spec in specs]}")
        for value, spec in zip(values, specs, strict=True):
            _apply_spec(value, spec)


def _apply_spec(value: ir.Value, spec: TensorSpec) -> None:
    if value.dtype != _ELEMENT_TYPES[spec.dtype]:
        raise GraphError(f"{spec.name} is {value.dtype} in the graph, not {spec.dtype}; return {spec.dtype} logits")
    rank = None if value.shape is None else len(value.shape)
    if rank is not None and rank != len(spec.dims):
        raise GraphError(f"{spec.name} has {rank} axes in the graph, not the {len(spec.dims)} of {list(spec.dims)}")
    value.shape = ir.Shape([_dim(dim) for dim in spec.dims])


def _dim(dim: Dim) -> int | ir.SymbolicDim:
    return ir.SymbolicDim(dim) if isinstance(dim, str) else dim
