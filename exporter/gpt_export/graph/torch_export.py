"""A module to an ONNX graph without weights by `torch.export`: the road for what TorchScript does not compile.

The contract is that of `to_onnx`: weights are inputs behind those of the signature, named as in the module.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

import onnx_ir as ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import nn
from torch.export import ExportedProgram

from gpt_export.errors import GraphError
from gpt_export.graph.captured import capture
from gpt_export.graph.causes import chain_of, explained, frame_in_text, user_frame
from gpt_export.graph.exported_graph import first_names, tidy
from gpt_export.graph.lowering import lowered_in_place
from gpt_export.graph.opset_17 import lower_opset
from gpt_export.graph.opsets import check_opset
from gpt_export.graph.silence import silence
from gpt_export.graph.to_onnx import apply_signature
from gpt_export.runtime.signature import Signature

logger = logging.getLogger(__name__)

LOWEST_OPSET = 18
"""The first that torch writes on this road; a graph for one below is made of one at this."""


def export_to_onnx(
    module: nn.Module,
    signature: Signature,
    opset: int,
    sizes: Mapping[str, int],
    device: str,
    longest: int | None = None,
) -> ir.Model:
    """The graph of `module`: first the signature's inputs, then one input for each parameter and buffer.

    Each of the latter has its `Layout` (`gpt_export.weights.layout`). Nodes carry the path of their module, as those
    of a script do.

    Args:
        module: in eval mode; its forward takes the signature's inputs and returns its outputs.
        sizes: of the dims that vary, in an example; small.
        device: where the module's weights are; "meta" for a module without.
        longest: the longest sequence that the module takes, so far as it is known.

    Raises:
        ConfigError: the opset is not supported.
        GraphError: torch.export cannot follow the module, an operator has no ONNX form at this opset, or the result
            has other inputs, outputs or sizes than the signature.
    """
    check_opset(opset)
    with silence():
        program = capture(module, signature, sizes, device, longest)
        model = _translate(program, max(opset, LOWEST_OPSET), type(module).__name__)
        tidy(model, first_names(module), signature, sizes)
        if opset < LOWEST_OPSET:
            lower_opset(model)
            RemoveUnusedNodesPass()(model)
    apply_signature(model.graph, signature)
    logger.info("torch.export gave %d nodes at opset %d", len(model.graph), opset)
    return model


def _translate(program: ExportedProgram, opset: int, name: str) -> ir.Model:
    lowered: list[ExportedProgram] = []
    try:
        with lowered_in_place() as lowered:
            exported = torch.onnx.export(program, dynamo=True, opset_version=opset, optimize=False, verbose=False)
    except Exception as error:  # torch.onnx raises its own tree and internal types
        raise GraphError(
            f"{name} does not become an ONNX graph by torch.export: {_explained(error, [program, *lowered])}; "
            "write that part with operators that ONNX has"
        ) from error
    assert exported is not None  # torch says None for the old exporter
    return exported.model


def _explained(error: Exception, programs: list[ExportedProgram]) -> str:
    """The cause of a failed translation, with the user's line that asked for the operator."""
    told = explained(error)
    if user_frame(error) is not None:
        return told
    named = {name for link in chain_of(error) for name in re.findall(r"%(\w+) : ", str(link))}
    nodes = (node for program in reversed(programs) for node in program.graph.nodes)
    traces = (str(node.meta.get("stack_trace")) for node in nodes if node.name in named)
    place = next((place for trace in traces if (place := frame_in_text(trace))), None)
    return told if place is None else f"{told} ({place[0]}, line {place[1]})"
