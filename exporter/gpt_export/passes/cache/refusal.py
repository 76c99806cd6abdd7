"""The one way in which the pass says no."""

from __future__ import annotations

import ast

import onnx_ir as ir

from gpt_export.errors import GraphError

_SCOPES = "pkg.torch.onnx.name_scopes"


class CacheRefusedError(GraphError):
    """A graph whose cache cannot be derived; the message is one sentence that names the operator and its place."""


def place_of(node: ir.Node) -> str:
    """Operator, node and module of `node` in words, as refusals name it."""
    scope = _scope(node)
    inside = f" in {scope}" if scope else ""
    return f"{node.op_type} {node.name or '(unnamed)'}{inside}"


def refuse(node: ir.Node, what: str) -> CacheRefusedError:
    """The refusal of `node`, which does `what` (a verb phrase)."""
    return CacheRefusedError(f"no cache is derived, because {place_of(node)} {what}")


def _scope(node: ir.Node) -> str:
    """The module that `node` comes from: torch.export's scopes, or the path that the script road names nodes by."""
    text = node.metadata_props.get(_SCOPES)
    if text:
        try:
            names = [str(name) for name in ast.literal_eval(text)]
        except (SyntaxError, ValueError):
            return ""
        return names[-2] if len(names) > 1 else ""
    parts = (node.name or "").strip("/").split("/")
    return ".".join(parts[:-1])
