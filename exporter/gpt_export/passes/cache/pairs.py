"""What is cached together: a pair of keys and values for each layer that attends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from gpt_export.passes.cache.attentions import Attention
from gpt_export.passes.cache.cuts import Cut
from gpt_export.runtime.signature import LayerCache


@dataclass(frozen=True, slots=True)
class Part:
    """What one attention reads: keys, several where its weights are combined from several scores, and values."""

    keys: tuple[Cut, ...]
    value: Cut

    @property
    def heads(self) -> int | None:
        """The heads that all of them have, None where they differ."""
        found = {cut.heads for cut in (*self.keys, self.value)}
        return found.pop() if len(found) == 1 else None


@dataclass(frozen=True, slots=True)
class Pair:
    """Keys and values of one attention, or of heads that are computed apart, side by side."""

    parts: tuple[Part, ...]

    @property
    def folded(self) -> bool:
        """Whether heads lie in the width, since keys and values differ in how many they have."""
        return self.parts[0].heads is None

    def cuts(self, kind: str) -> tuple[Cut, ...]:
        """The cut keys or values, in the order in which they lie in the cache."""
        return tuple(cut for part in self.parts for cut in (part.keys if kind == "key" else (part.value,)))

    def width(self, cut: Cut) -> int:
        """How wide a row of `cut` is in the cache."""
        return cut.heads * cut.width if self.folded else cut.width

    @property
    def side_by_side(self) -> bool:
        """Whether several cuts lie along the heads, not along the width."""
        return len(self.parts) > 1

    def shape(self) -> LayerCache:
        """Heads and widths of the cache."""
        first = self.parts[0]
        heads = 1 if self.folded else sum(part.heads or 0 for part in self.parts)
        key_dim = sum(self.width(cut) for cut in first.keys)
        return LayerCache(n_heads=heads, key_dim=key_dim, value_dim=self.width(first.value))


def pair_up(attentions: Sequence[Attention]) -> list[Pair]:
    """The cached pairs in order of depth: equal ones once, heads that are computed apart together."""
    groups: dict[tuple[object, ...], list[Part]] = {}
    seen: set[tuple[ir.Value, ...]] = set()
    for attention in sorted(attentions, key=lambda each: each.depth):
        part = Part(_distinct(attention.keys), attention.value)
        values = tuple(cut.value for cut in (*part.keys, part.value))
        if values in seen:
            continue
        seen.add(values)
        alone = part.heads is None or len(part.keys) > 1
        same = (values,) if alone else (part.keys[0].width, part.value.width)
        groups.setdefault((attention.depth, *same), []).append(part)
    return [Pair(tuple(parts)) for parts in groups.values()]


def _distinct(cuts: Sequence[Cut]) -> tuple[Cut, ...]:
    return tuple({cut.value: cut for cut in cuts}.values())
