"""Which operators a graph is made of, and an error where a fusion did not take place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import onnx_ir as ir

from gpt_export.errors import GraphError
from gpt_export.passes.fused.facts import ACTIVATIONS, NORMS, AttentionFacts, attention_facts, found
from gpt_export.passes.quantized.products import find_products, token_lookups
from gpt_export.weights.quantize.schemes import Precision

_DIGITS = 5


def operator_counts(model: ir.Model) -> dict[str, int]:
    """How often each operator occurs, Constants aside, sorted by name; `com.microsoft` ones by their bare name."""
    return dict(sorted(Counter(node.op_type for node in model.graph if node.op_type != "Constant").items()))


def check_quantized(before: ir.Model, counts: Mapping[str, int], precision: Precision) -> None:
    """Holds the counts of a quantised graph against the products and lookups with weights that `before` had.

    Raises:
        GraphError: they differ.
    """
    products = find_products(before.graph)
    lookups = sum(len(token_lookups(value)) for value in before.graph.inputs)
    wanted = {"products": len(products), "lookups": lookups}
    quantized = {
        "products": counts.get("MatMulNBits", 0) + counts.get("MatMulIntegerToFloat", 0),
        "lookups": counts.get("GatherBlockQuantized", 0),
    }
    if quantized != wanted:
        raise GraphError(
            f"the {precision} graph has quantised {quantized} where its float graph has {wanted}; "
            "leave that precision out, and please report this"
        )


def check_fusions(model: ir.Model) -> None:
    """Holds a fused graph against what was found out about its layers.

    Each layer whose attention is fused is one GroupQueryAttention with the heads, scale, window and cap that were
    found, and two RotaryEmbeddings where it turns; every norm and activation that was found is one operator.

    Raises:
        GraphError: they differ.
    """
    counts = operator_counts(model)
    facts = [each for each in attention_facts(model) if each.plain is None]
    turning = sum(each.turned in ("halves", "interleaved") for each in facts)
    wanted = {"attention": len(facts), "rotations": 2 * turning, **found(model)}
    kinds: dict[str, tuple[str, ...]] = {"attention": ("GroupQueryAttention",), "rotations": ("RotaryEmbedding",)}
    kinds |= {"norms": NORMS, "activations": ACTIVATIONS}
    have = {what: sum(counts.get(name, 0) for name in kinds[what]) for what in wanted}
    if have != wanted:
        raise GraphError(
            f"the fused graph has {have} where its layers demand {wanted}; "
            "export with --profile portable, and please report this"
        )
    nodes = {node.name: node for node in model.graph if node.op_type == "GroupQueryAttention"}
    for each in facts:
        node = nodes.get(f"/attention.{each.layer}")
        if node is None or _written(node) != _facts(each):
            raise GraphError(
                f"layer {each.layer} attends with {_written(node) if node else 'nothing'} where {_facts(each)} was "
                "found; export with --profile portable, and please report this"
            )


def _written(node: ir.Node) -> dict[str, float]:
    of = node.attributes
    return {
        "heads": of.get_int("num_heads", 0),
        "kv_heads": of.get_int("kv_num_heads", 0),
        "window": max(of.get_int("local_window_size", -1), 0),
        "cap": round(of.get_float("softcap", 0.0), _DIGITS),
        "scale": round(of.get_float("scale", 0.0), _DIGITS),
    }


def _facts(facts: AttentionFacts) -> dict[str, float]:
    return {
        "heads": facts.heads,
        "kv_heads": facts.kv_heads,
        "window": facts.window,
        "cap": round(facts.cap, _DIGITS),
        "scale": round(facts.scale, _DIGITS),
    }
