"""The two roads from a module to a graph: `torch.jit.script`, and `torch.export` for what that does not take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir
from torch import nn

from gpt_export.errors import GraphError, ScriptError
from gpt_export.graph.script import script
from gpt_export.graph.to_onnx import to_onnx
from gpt_export.runtime.signature import Signature

Road = Literal["auto", "script", "export"]


@dataclass(frozen=True, slots=True)
class BuiltGraph:
    """A graph whose weights are inputs, the road that made it, and in a line why the road before it did not."""

    model: ir.Model
    road: Road
    why_not: str = ""


def build(
    skeleton: nn.Module, signature: Signature, opset: int, sizes: Mapping[str, int], road: Road, device: str = "meta"
) -> BuiltGraph:
    """The graph of `skeleton` by the road that is asked for; `auto` is the first that takes it.

    Raises:
        ScriptError, GraphError: no road that may be taken takes the module; the message has every reason.
    """
    from gpt_export.graph.torch_export import export_to_onnx

    why_not = ""
    if road != "export":
        try:
            return BuiltGraph(to_onnx(script(skeleton), signature, opset, sizes, device), "script")
        except (ScriptError, GraphError) as error:
            if road == "script":
                raise
            why_not = str(error)
    try:
        return BuiltGraph(export_to_onnx(skeleton, signature, opset, sizes, device), "export", why_not)
    except GraphError as error:
        if not why_not:
            raise
        raise GraphError(f"{error}; and by torch.jit.script: {why_not}") from error
