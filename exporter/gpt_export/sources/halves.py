"""16-bit floats on a module's way: seen while it runs, and left out of what it is judged by.

onnxruntime does not compute in bfloat16 on a CPU, and a graph is exported in float32. So that the two can be held to
float32's limits, the module's own code is run in float32 throughout as well.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from gpt_export.weights.numbers import HALVES

_aten = torch.ops.aten
_MOVES = frozenset(
    {
        _aten.embedding.default,
        _aten.index.Tensor,
        _aten.index_select.default,
        _aten.gather.default,
        _aten.clone.default,
        _aten.cat.default,
    }
)
"""Operators beside views that hand numbers on as they are."""


class Roundings(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, remembers the first 16-bit type that is rounded to; reading tables of that type is no rounding."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dtype: torch.dtype | None = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if self.dtype is None and (_is_mutable(func) or not _hands_on(func)):
            made = (each for each in tree_leaves(found) if isinstance(each, Tensor) and each.dtype in HALVES)
            self.dtype = next((each.dtype for each in made), None)
        return found


def computing_in_float32(module: nn.Module) -> nn.Module:
    """`module` with the same parts, whose forward takes ids and rounds nothing to 16 bits, whatever its code says.

    It is a copy of the module object alone, of a class made below the module's own. It does not script.
    """
    kind = type(module)
    wide = object.__new__(kind)
    wide.__dict__ = dict(module.__dict__)
    wide.__dict__.pop("forward", None)

    def forward(_self: nn.Module, input_ids: Tensor) -> Any:
        with _WideFunctions(), _WideOperators():  # type: ignore[no-untyped-call]
            return module.forward(input_ids)

    wide.__class__ = type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})
    return wide


class _WideFunctions(TorchFunctionMode):
    """While active, no function that code calls is given a 16-bit type or floats of it; `torch.export` sees these."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (Tensor.bfloat16, Tensor.half):
            return args[0] if args[0].dtype == torch.float64 else args[0].float()
        if getattr(func, "__name__", "") == "__get__":  # code may look at the type of a table
            return func(*args, **(kwargs or {}))
        return func(*tree_map(_wide, args), **tree_map(_wide, kwargs or {}))


class _WideOperators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, no operator is given 16-bit floats or makes them; autocast's are seen by this one alone."""

    supports_higher_order_operators = True

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if _hands_on(func):
            return func(*args, **(kwargs or {}))
        return func(*tree_map(_wide, args), **tree_map(_wide, kwargs or {}))


def _wide(value: Any) -> Any:
    if isinstance(value, torch.dtype):
        return torch.float32 if value in HALVES else value
    return value.float() if isinstance(value, Tensor) and value.dtype in HALVES else value


def _hands_on(func: Any) -> bool:
    return func in _MOVES or any(each.alias_info is not None for each in _returns(func))


def _is_mutable(func: Any) -> bool:
    return isinstance(func, torch._ops.OpOverload) and func._schema.is_mutable


def _returns(func: Any) -> Any:
    """What the schema says of what is returned; an operator of higher order, such as flex_attention, has none."""
    return func._schema.returns if isinstance(func, torch._ops.OpOverload) else ()
