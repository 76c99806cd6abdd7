"""One rule an operator: what each axis of its outputs means, given those of its inputs, or a refusal by name."""

from __future__ import annotations

from gpt_export.passes.cache.rules import choices, elementwise, lookups, movers, products, reductions
from gpt_export.passes.cache.rules.reading import Rule

RULES: dict[str, Rule] = {
    **elementwise.RULES,
    **movers.RULES,
    **reductions.RULES,
    **products.RULES,
    **lookups.RULES,
    **choices.RULES,
}
