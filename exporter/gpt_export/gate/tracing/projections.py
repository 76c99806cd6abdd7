"""Which modules are the projections of an attention: by what their names say, and by their widths."""

from __future__ import annotations

import re

import numpy as np

from gpt_export.gate.tracing.activations import Array
from gpt_export.gate.tracing.evidence import Evidence

_QUERY, _KEY, _VALUE = (
    re.compile(rf"(\w*_)?({word}|{word[0]})(_?proj\w*|_lin|_linear)?|w{word[0]}|W{word[0]}")
    for word in ("query", "key", "value")
)
_FUSED = re.compile(r"(w|c|in|to)?_?(qkv|attn|query_key_value)(_proj)?|in_proj|Wqkv", re.IGNORECASE)


def projections_of(evidence: Evidence, block: str, width: int) -> tuple[Array, Array, Array] | None:
    """Eager's queries, keys and values in `block`, (positions, width) each, from three modules or from a fused one.

    Args:
        width: of the queries, which is what the output projection reads.
    """
    outputs = {
        module.removeprefix(f"{block}."): array
        for (module, end), array in evidence.expected.items()
        if end == "output" and module.startswith(f"{block}.")
    }
    apart = [[array for name, array in outputs.items() if of.fullmatch(name)] for of in (_QUERY, _KEY, _VALUE)]
    if all(len(found) == 1 for found in apart):
        query, key, value = (found[0] for found in apart)
        return query, key, value
    fused = [array for name, array in outputs.items() if _FUSED.fullmatch(name)]
    if len(fused) != 1 or fused[0].shape[1] <= width or (fused[0].shape[1] - width) % 2:
        return None
    query, key, value = np.split(fused[0], [width, (fused[0].shape[1] + width) // 2], axis=1)
    return query, key, value
