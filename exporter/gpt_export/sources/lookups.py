"""How many ids a module takes: the rows of the first table that it looks its ids up in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten
_TABLE_AND_INDEX: dict[Any, Callable[..., tuple[Any, Any]]] = {
    _aten.embedding.default: lambda table, index, *_: (table, index),
    _aten.index.Tensor: lambda table, indices, *_: (table, indices[0]),
    _aten.index_select.default: lambda table, axis, index: (table if axis == 0 else None, index),
}
"""Operators that take rows out of a table, and where their arguments are."""


class IdLookups(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, remembers the rows of the first table that is read at `ids`, however the module spells that.

    What is looked up must be the ids themselves, so ids that look like positions or like a constant tell nothing.
    """

    supports_higher_order_operators = True  # such as flex_attention, which is run as it is

    def __init__(self, ids: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._ids = ids.flatten()
        self.rows: int | None = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if self.rows is None and func in _TABLE_AND_INDEX:
            table, index = _TABLE_AND_INDEX[func](*args)
            if isinstance(table, Tensor) and isinstance(index, Tensor) and self._is_ids(index):
                self.rows = table.shape[0]
        return func(*args, **(kwargs or {}))

    def _is_ids(self, index: Tensor) -> bool:
        integral = not index.is_floating_point() and index.dtype != torch.bool
        return integral and index.numel() == self._ids.numel() and bool((index.flatten() == self._ids).all())
