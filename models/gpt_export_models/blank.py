"""Modules without weights: on the meta device, with no time spent on drawing numbers nobody will read."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

M = TypeVar("M", bound=nn.Module)


class InitialisersSkipped(TorchFunctionMode):
    """`torch.nn.init` functions return their tensor as it is; with `parameters_only` those that are parameters."""

    def __init__(self, *, parameters_only: bool = False) -> None:
        super().__init__()
        self._parameters_only = parameters_only

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            tensor = kwargs["tensor"] if "tensor" in kwargs else args[0]
            if not self._parameters_only or isinstance(tensor, nn.Parameter):
                return tensor
        return func(*args, **kwargs)


def blank(make: Callable[[], M]) -> M:
    """The module that `make` returns, in eval mode, with parameters and buffers on the meta device."""
    with InitialisersSkipped(), torch.device("meta"):
        return make().eval()


def filled(make: Callable[[], M], weights: Mapping[str, Tensor]) -> M:
    """The module that `make` returns, in eval mode, on the tensors of `weights` themselves: nothing is copied.

    Raises:
        RuntimeError: a name is missing or unexpected, or a shape differs.
    """
    module = blank(make)
    module.load_state_dict(weights, assign=True)
    return module.requires_grad_(False)


def without_weights(module: nn.Module) -> nn.Module:
    """A copy of `module` whose parameters and buffers are on the meta device: shapes and ties, but no data.

    Tensors that are plain attributes are neither and stay as they are.
    """
    memo: dict[int, object] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
    for buffer in module.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    try:
        return copy.deepcopy(module, memo)
    except Exception:  # an attribute of the user's that cannot be copied, such as a lock or a generator
        return parts_copied(module, memo)


def parts_copied(module: nn.Module, replaced: Mapping[int, object] | None = None) -> nn.Module:
    """A copy of `module` and its parts; their attributes that are no parts, tensors among them, are the same objects.

    Args:
        replaced: what stands in the copy for a parameter or buffer, by its `id`.
    """
    return _parts_copied(module, replaced or {}, {})


_HELD = ("_parameters", "_buffers", "_forward_hooks", "_forward_pre_hooks")


def _parts_copied(module: nn.Module, replaced: Mapping[int, object], made: dict[int, nn.Module]) -> nn.Module:
    if id(module) in made:
        return made[id(module)]
    copied: nn.Module = object.__new__(type(module))
    made[id(module)] = copied
    copied.__dict__ = dict(module.__dict__)
    for name in _HELD:
        held = copy.copy(module.__dict__[name])
        held.update({key: replaced.get(id(value), value) for key, value in held.items()})
        copied.__dict__[name] = held
    copied.__dict__["_modules"] = {
        name: None if child is None else _parts_copied(child, replaced, made) for name, child in module._modules.items()
    }
    return copied
