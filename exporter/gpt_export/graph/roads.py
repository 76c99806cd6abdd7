"""The two roads from a module to a graph: by script, and by torch.export where the script does not go."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx_ir as ir
from torch import nn

from gpt_export.errors import GraphError, ScriptError
from gpt_export.graph.road_names import Road, TakenRoad
from gpt_export.graph.script import script
from gpt_export.graph.to_onnx import to_onnx
from gpt_export.runtime.signature import DECODER_NAMES, Signature
from gpt_export.weights.layout import layout_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltGraph:
    """A graph without weights, and how it was come by."""

    model: ir.Model
    road: TakenRoad
    why_not: str | None = None
    """Why the road that was tried first did not do, in one line."""


def build(
    skeleton: nn.Module,
    reference: Callable[[], nn.Module],
    signature: Signature,
    opset: int,
    sizes: Mapping[str, int],
    *,
    road: Road = "auto",
    longest: int | None = None,
) -> BuiltGraph:
    """The graph of a module by the road asked for; `auto` is the script, and torch.export where that fails.

    A module that does not run on the meta device (it holds loose tensors, or names a device) goes with its weights in
    place; the graph is the same, the memory is not.

    Args:
        skeleton: the module on the meta device.
        reference: gives the module with its weights.
        sizes: of the dims that vary, in an example; small.
        longest: the longest sequence that the module takes, so far as it is known.

    Raises:
        ConfigError: the opset is not supported.
        ScriptError: the module does not script, and that was the only road.
        GraphError: no road that was allowed leads to a graph; with `auto` the message has both reasons.
    """

    def by_script() -> ir.Model:
        def make(module: nn.Module, device: str) -> ir.Model:
            return to_onnx(script(module, apart=True), signature, opset, sizes, device)

        return _with_weights_if_needed(make, skeleton, reference)

    def by_export() -> ir.Model:
        # Importing it takes a second and the half of torch that a script does without.
        from gpt_export.graph.torch_export import export_to_onnx

        def make(module: nn.Module, device: str) -> ir.Model:
            return export_to_onnx(module, signature, opset, sizes, device, longest)

        return _with_weights_if_needed(make, skeleton, reference)

    if road == "script":
        return BuiltGraph(model=by_script(), road="script")
    if road == "export":
        return BuiltGraph(model=by_export(), road="export")
    try:
        return BuiltGraph(model=by_script(), road="script")
    except (ScriptError, GraphError) as error:
        why_not = str(error)
    logger.info("not by script: %s", why_not)
    try:
        return BuiltGraph(model=by_export(), road="export", why_not=why_not)
    except GraphError as error:
        raise GraphError(f"by script: {why_not}; by torch.export: {error}") from error


def _with_free_names(model: ir.Model) -> ir.Model:
    """`model`, its weights renamed that are called as inputs and outputs of a graph with a cache are."""
    for value in model.graph.inputs:
        name = str(value.name)
        if layout_of(value) and name.startswith(DECODER_NAMES):
            value.name = f"module.{name}"
    return model


def _with_weights_if_needed(
    make: Callable[[nn.Module, str], ir.Model], skeleton: nn.Module, reference: Callable[[], nn.Module]
) -> ir.Model:
    """What `make` gives for the skeleton on the meta device, or else for the module with its weights."""
    try:
        return _with_free_names(make(skeleton, "meta"))
    except GraphError as error:
        logger.info("no graph without weights (%s); exporting with the weights in place", error)
    return _with_free_names(make(reference(), "cpu"))
