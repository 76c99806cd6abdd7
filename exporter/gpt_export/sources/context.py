"""The longest sequence that a module is for."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from gpt_export.sources.modes import as_it_came

ASSUMED_CONTEXT = 1024
_CONTEXT_KEYS = (
    "context_length",
    "block_size",
    "n_positions",
    "max_position_embeddings",
    "n_ctx",
    "max_seq_len",
    "sequence_len",
)
"""What people call it in their modules and configurations."""


def context_length_of(module: nn.Module, rows: int) -> tuple[int, tuple[str, ...]]:
    """The context that the module states in its configuration, otherwise the longest sequence it runs on.

    Of several that are stated in one place it is the longest: the others are sizes of blocks and windows.

    Args:
        rows: how many ids there are; several are tried, as one may be padding, which many modules do not count.
    """
    for holder in (module, *(getattr(module, name, None) for name in ("config", "cfg", "params"))):
        values = [
            holder.get(key) if isinstance(holder, Mapping) else getattr(holder, key, None) for key in _CONTEXT_KEYS
        ]
        stated = [value for value in values if isinstance(value, int) and not isinstance(value, bool) and value > 0]
        if stated:
            return max(stated), ()
    found = _longest_run(module, rows)
    how = "the longest it runs on" if found < ASSUMED_CONTEXT else "the longest that was tried"
    return found, (f"context length {found} is {how}; give the module a context_length to state another",)


def _longest_run(module: nn.Module, rows: int) -> int:
    runs, fails = 1, ASSUMED_CONTEXT + 1
    length = ASSUMED_CONTEXT
    ids = torch.tensor(sorted({0, rows // 2, rows - 1}))[:, None]
    while runs + 1 < fails:
        try:
            with as_it_came(module), torch.no_grad():
                module(ids.repeat(1, length))
            runs = length
        except Exception:  # the user's code says in its own way that it takes no more
            fails = length
        length = (runs + fails) // 2
    return runs
