"""What was found out about each layer of a graph, and what its operators therefore are."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import onnx_ir as ir

from gpt_export.passes.fused.scores import Bias

_KEY = "gpt_export_attention"
_COUNTS = "gpt_export_fused_counts"
NORMS = (
    "LayerNormalization",
    "SkipLayerNormalization",
    "SimplifiedLayerNormalization",
    "SkipSimplifiedLayerNormalization",
)
ACTIVATIONS = ("FastGelu", "BiasGelu", "Gelu", "QuickGelu")
Turned = Literal["not", "halves", "interleaved", "in front"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionFacts:
    """One layer's attention as onnxruntime's GroupQueryAttention computes it, or why it does not."""

    layer: int
    plain: str | None = None
    """Why the layer keeps the standard operators; None where it is fused, and all that follows is known."""
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    scale: float = 0.0
    cap: float = 0.0
    window: int = 0
    turned: Turned = "not"
    """How the operator turns keys and queries; "in front" where the graph still does."""
    rotated: int = 0
    bias: Bias = "none"
    sinks: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON values of every field."""
        return asdict(self)


def set_attention_facts(model: ir.Model, facts: list[AttentionFacts]) -> None:
    """Leaves `facts`, one for each layer of the cache, with the model."""
    model.meta[_KEY] = tuple(facts)


def attention_facts(model: ir.Model) -> tuple[AttentionFacts, ...]:
    """What `set_attention_facts` left; nothing where attention was not looked at."""
    facts: tuple[AttentionFacts, ...] = model.meta.get(_KEY, ())
    return facts


def set_found(model: ir.Model, what: str, operators: tuple[str, ...]) -> None:
    """Leaves with the model how many of `operators` it has, as `what` was found in it."""
    count = sum(node.op_type in operators for node in model.graph)
    model.meta[_COUNTS] = {**model.meta.get(_COUNTS, {}), what: count}


def found(model: ir.Model) -> dict[str, int]:
    """What `set_found` left, by what was found."""
    counts: dict[str, int] = model.meta.get(_COUNTS, {})
    return counts
