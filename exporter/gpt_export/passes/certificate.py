"""Which operators a graph is made of, and an error where a fusion did not take place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import onnx_ir as ir

from gpt_export.errors import GraphError
from gpt_export.passes.quantized.products import find_products, token_lookups
from gpt_export.weights.quantize.schemes import Precision

_LEFTOVERS = ("Softmax", "Erf", "Tanh", "LayerNormalization", "Split")
"""Operators of the written-out layers; none is left where everything was fused."""


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
    found = {
        "products": counts.get("MatMulNBits", 0) + counts.get("MatMulIntegerToFloat", 0),
        "lookups": counts.get("GatherBlockQuantized", 0),
    }
    if found != wanted:
        raise GraphError(
            f"the {precision} graph has quantised {found} where its float graph has {wanted}; "
            "leave that precision out, and please report this"
        )


def check_fusions(counts: Mapping[str, int], n_layers: int) -> None:
    """Holds the counts of a fused graph against what its number of layers demands.

    One attention a layer, one activation a layer, and two norms a layer beside the final one, each with the sum in
    front of it.

    Raises:
        GraphError: they differ.
    """
    gelus = sum(counts.get(name, 0) for name in ("FastGelu", "BiasGelu", "Gelu"))
    found = {
        "GroupQueryAttention": counts.get("GroupQueryAttention", 0),
        "GELU": gelus,
        "SkipLayerNormalization": counts.get("SkipLayerNormalization", 0),
    }
    wanted = {"GroupQueryAttention": n_layers, "GELU": n_layers, "SkipLayerNormalization": 2 * n_layers + 1}
    left = [name for name in _LEFTOVERS if counts.get(name)]
    if found != wanted or left:
        more = f", and {', '.join(left)} are left" if left else ""
        raise GraphError(
            f"the fused graph has {found} where {n_layers} layers demand {wanted}{more}; "
            "export with --profile portable, and please report this"
        )
