"""The cache pass: from a graph that maps ids to logits to one that takes the past and returns the present.

It knows operators and no architectures. In the order of `derive_cache`:

1. `normal_form` rewrites spellings (CastLike, split sequences, Einsum) to plainer operators.
2. `interpreter` walks the graph once with a fact about each value: what each axis means (batch, rows, columns, a
   number) and whether it depends on weights, on positions, or on the ids. `rules` has one rule an operator; an
   operator without one is refused by name, and so is one that moves along the sequence. What depends on positions
   alone is evaluated at two sizes (`evaluate`), so that no shape has to be understood, only compared.
3. `attentions` are products of rows with rows, up to a product in which those columns meet the values' rows; `cuts`
   walks back from keys and values to the smallest form from which they follow by moving entries; `pairs` says which
   of them are cached together.
4. `tables` and `checks` prove by evaluation what makes a cache the same model: row i of each table is the same at
   every length, and what a row attends to is causal and unchanged by later tokens and by padding in front. They choose
   how padding is hidden, and whether tables are read by slot or by position; `bands` sees what a mask is.
5. `emission` writes the new graph: data at the level of new rows, keys and values at the level of all.
"""

from __future__ import annotations

from gpt_export.passes.cache.derive import DerivedCache, derive_cache
from gpt_export.passes.cache.refusal import CacheRefusedError

__all__ = ["CacheRefusedError", "DerivedCache", "derive_cache"]
