"""The cache pass: from a graph that maps ids to logits to one that takes the past and returns the present."""

from __future__ import annotations

from gpt_export.passes.cache.derive import DerivedCache, derive_cache
from gpt_export.passes.cache.refusal import CacheRefusedError

__all__ = ["CacheRefusedError", "DerivedCache", "derive_cache"]
