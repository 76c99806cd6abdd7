"""What was found of each attention, for the passes that fuse and the gate that proves.

Nodes are named as in the derived graph, which keeps the names of the plain one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gpt_export.passes.cache.attentions import Attention
from gpt_export.passes.cache.axes import Sizes
from gpt_export.passes.cache.checks import Plan
from gpt_export.passes.cache.interpreter import Meaning
from gpt_export.passes.cache.lengths import candidate_lengths
from gpt_export.passes.cache.pairs import Pair
from gpt_export.passes.cache.tables import Use


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundAttention:
    """One product with values: its nodes, and what its mask is."""

    pair: int
    """Which pair of the cache holds its keys and values."""
    n_heads: int
    """Heads of queries."""
    scores: tuple[str, ...]
    """Products of queries and keys; several where weights are combined from several scores."""
    softmaxes: tuple[str, ...]
    mix: str
    """The product with the values."""
    key_factor: float
    """What the keys were scaled by in the plain graph, and the query is in the derived one."""
    causal: bool
    """Whether one bias of padding and a band took the place of the masks. If not, they are written as they were."""
    window: int | None
    """How many tokens a row sees, its own included; None for all before it, or where `causal` is False."""
    by_position: bool
    """Whether its tables are read by positions, since they are more than distances."""


def found_attentions(
    meaning: Meaning, plans: Mapping[Attention, Plan], pairs: Sequence[Pair]
) -> tuple[FoundAttention, ...]:
    """The attentions of a graph, in its order."""
    return tuple(_found(meaning, attention, plan, pairs) for attention, plan in plans.items())


def _found(meaning: Meaning, attention: Attention, plan: Plan, pairs: Sequence[Pair]) -> FoundAttention:
    keys = {cut.value for cut in attention.keys}
    pair = next(
        i
        for i, each in enumerate(pairs)
        if keys <= {cut.value for cut in each.cuts("key")}
        and attention.value.value in {cut.value for cut in each.cuts("value")}
    )
    axes = meaning.facts[attention.weights].axes
    return FoundAttention(
        pair=pair,
        n_heads=int(np.prod(Sizes(1, 1).shape(axes))),
        scores=tuple(str(product.node.name) for product in attention.products),
        softmaxes=tuple(str(node.name) for node in attention.softmaxes),
        mix=str(attention.mix.name),
        key_factor=attention.keys[0].factor,
        causal=plan.band is not None,
        window=plan.band.window if plan.band else None,
        by_position=plan.by_position,
    )


def telling_lengths(
    meaning: Meaning, plans: Mapping[Attention, Plan], uses: Sequence[Use], longest: int | None
) -> tuple[int, ...]:
    """Lengths at which the graph does something new, in order: windows, the numbers that other masks hold, the end."""
    found = {plan.band.window for plan in plans.values() if plan.band and plan.band.window}
    masked = {node for plan in plans.values() for node in plan.masks}
    others = [use.value for use in uses if use.columns and use.node not in masked]
    found |= {length for length in candidate_lengths(meaning, others) if length > 1}
    if longest is not None:
        found.add(longest)
    return tuple(sorted(length for length in found if length is not None and length <= (longest or meaning.longest)))
