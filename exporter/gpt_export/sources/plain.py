"""A user's module without its wrappings: what torch.compile, DataParallel and parametrizations put around the code.

Everything here works on copies of the module objects, which share their tensors with the module that was given.
"""

from __future__ import annotations

import copy
import logging
from collections import OrderedDict
from collections.abc import Iterator
from types import ModuleType
from typing import Any, cast

import torch
from gpt_export_models.blank import parts_copied
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from gpt_export.errors import SourceError
from gpt_export.weights.numbers import HALVES

logger = logging.getLogger(__name__)

_HALF_NAMES = tuple(str(dtype).removeprefix("torch.") for dtype in HALVES)
_PARTS = ("_parameters", "_buffers", "_modules")
_DEEPEST_CONFIG = 4
_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def plain(module: nn.Module) -> nn.Module:
    """`module` as its author wrote it, on the CPU: compiled, parallel and parametrized parts are looked through.

    It is `module` itself where there is nothing to look through.

    Raises:
        SourceError: it holds quantised weights, or none (the meta device).
    """
    module = unwrapped(module)
    if isinstance(module, torch.jit.ScriptModule):
        return module
    _refuse_quantized(module)
    if any(tensor.device.type == "meta" for tensor in _state(module)):
        raise SourceError(
            f"{type(module).__name__} has tensors on the meta device, which hold no numbers; load its weights first"
        )
    elsewhere = any(tensor.device.type != "cpu" for tensor in _state(module))
    if not (elsewhere or any(_is_derived(part) for part in module.modules())):
        return module
    module = sharing_copy(module)
    for part in module.modules():
        _fold(part)
    return module.cpu() if elsewhere else module


def unwrapped(module: nn.Module) -> nn.Module:
    """`module` and its parts without what `torch.compile` and `DataParallel` put around them; a copy if need be."""
    module = _inner(module)
    if all(_inner(part) is part for part in module.modules()):
        return module
    module = sharing_copy(module)
    for part in list(module.modules()):
        for name, child in part._modules.items():
            if child is not None:
                part._modules[name] = _inner(child)
    return module


def halves(module: nn.Module) -> str | None:
    """The 16-bit type that `module` computes in, such as `bfloat16`; None for one that only stores tables in it."""
    for part in module.modules():
        for tensor in part._parameters.values():
            if tensor is not None and tensor.dtype in HALVES and not isinstance(part, nn.Embedding):
                return str(tensor.dtype).removeprefix("torch.")
    return None


def widened(module: nn.Module) -> nn.Module:
    """A copy of `module` in float32, exactly: parameters, buffers, plain tensors, and the types that it keeps.

    Types are looked for in the attributes of its parts, and in the configurations that are kept there. Tensors that
    are float32 already are shared.
    """
    copied = sharing_copy(module)
    for part in copied.modules():
        for name, value in list(vars(part).items()):
            if name not in _PARTS and (wide := _widened_value(name, value)) is not value:
                part.__dict__[name] = wide
    ties: dict[int, nn.Parameter] = {}
    for part in copied.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None and parameter.dtype in HALVES:
                wide = ties.setdefault(id(parameter), nn.Parameter(parameter.detach().float(), requires_grad=False))
                part._parameters[name] = wide
        for name, buffer in part._buffers.items():
            if buffer is not None and buffer.dtype in HALVES:
                part._buffers[name] = buffer.float()
    return copied


def _widened_value(name: str, value: Any, depth: int = 0) -> Any:
    """`value` with 16-bit types as float32, itself if it has none; what it is part of is copied, never changed."""
    if isinstance(value, torch.dtype):
        return torch.float32 if value in HALVES else value
    if isinstance(value, Tensor):
        return value.float() if value.dtype in HALVES else value
    if isinstance(value, str):
        return "float32" if "dtype" in name and value.removeprefix("torch.") in _HALF_NAMES else value
    if depth == _DEEPEST_CONFIG:
        return value
    if isinstance(value, dict):
        wide = {key: _widened_value(str(key), each, depth + 1) for key, each in value.items()}
        changed = any(wide[key] is not each for key, each in value.items())
        return type(value)(wide) if changed and type(value) in (dict, OrderedDict) else wide if changed else value
    if isinstance(value, list | tuple):
        parts = [_widened_value(name, each, depth + 1) for each in value]
        if all(one is other for one, other in zip(parts, value, strict=True)):
            return value
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return _widened_object(value, depth)


def _widened_object(value: Any, depth: int) -> Any:
    """A configuration's copy with 16-bit types as float32; itself where it has none, or is no plain object."""
    own = getattr(value, "__dict__", None)
    if not isinstance(own, dict) or isinstance(value, nn.Module | type | ModuleType) or callable(value):
        return value
    wide = {name: _widened_value(name, each, depth + 1) for name, each in own.items()}
    if all(wide[name] is each for name, each in own.items()):
        return value
    copied = copy.copy(value)
    copied.__dict__.update(wide)
    return copied


def sharing_copy(module: nn.Module) -> nn.Module:
    """A copy of `module` and its parts that may be changed, on the very tensors of `module`."""
    memo: dict[int, Any] = {}
    for part in module.modules():
        for tensor in (*part._parameters.values(), *part._buffers.values()):
            memo[id(tensor)] = tensor
        for value in vars(part).values():
            if isinstance(value, Tensor):  # one with a gradient's history cannot be copied otherwise
                memo[id(value)] = value.detach()
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:  # an attribute of the user's that cannot be copied, such as a lock or a generator
        logger.info("%s is not copied deeply: %s", type(module).__name__, error)
        return parts_copied(module)


def _inner(module: nn.Module) -> nn.Module:
    while True:
        inner = module.module if isinstance(module, _PARALLEL) else getattr(module, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def _state(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _refuse_quantized(module: nn.Module) -> None:
    for name, part in module.named_modules():
        packed = next((key for key in vars(part) if key in ("_packed_params", "_packed_weight")), None)
        kinds = [
            type(tensor.data).__name__ if is_traceable_wrapper_subclass(tensor.data) else str(tensor.dtype)
            for tensor in part._parameters.values()
            if tensor is not None and (is_traceable_wrapper_subclass(tensor.data) or _is_coded(tensor))
        ]
        kinds += [
            str(buffer.dtype)
            for buffer in part._buffers.values()
            if buffer is not None and buffer.is_floating_point() and _is_coded(buffer)
        ]
        if packed or any(child in part._modules for child in ("_packed_params",)) or kinds:
            what = kinds[0] if kinds else "packed weights"
            raise SourceError(
                f"{type(module).__name__} is quantised already ({name or type(part).__name__} has {what}); pass the "
                "module as it was before, and let the export quantise it: --precision int8,int4"
            )


def _is_coded(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or tensor.dtype.itemsize == 1  # of 8 bits, with a scale elsewhere


def _is_derived(part: nn.Module) -> bool:
    return parametrize.is_parametrized(part) or bool(_old_style(part))


def _old_style(part: nn.Module) -> list[tuple[int, Any]]:
    """The hooks of `torch.nn.utils.weight_norm` and `spectral_norm`, which compute a weight before each forward."""
    return [
        (key, hook)
        for key, hook in part._forward_pre_hooks.items()
        if callable(getattr(hook, "compute_weight", None)) and isinstance(getattr(hook, "name", None), str)
    ]


def _fold(part: nn.Module) -> None:
    """Puts the weights that `part` derives from others in their place, as its own code computes them."""
    if parametrize.is_parametrized(part):
        lists = dict(cast(nn.ModuleDict, part.parametrizations).items())
        # Copies: torch itself writes what it derives from one tensor into that tensor, and it is the user's.
        with torch.no_grad():
            derived = {name: getattr(part, name).detach().clone() for name in lists}
        part.__class__ = type(part).__bases__[0]
        del part._modules["parametrizations"]
        for name, tensor in derived.items():
            if any(True for _ in lists[name].parameters(recurse=False)):
                part._parameters[name] = nn.Parameter(tensor, requires_grad=False)
            else:
                part._buffers[name] = tensor
    for key, hook in _old_style(part):
        with torch.no_grad():
            hook(part, ())  # leaves the derived weight as a plain attribute
        weight = getattr(part, hook.name).detach()
        delattr(part, hook.name)
        for suffix in ("_g", "_v", "_orig", "_u"):
            part._parameters.pop(hook.name + suffix, None)
            part._buffers.pop(hook.name + suffix, None)
        del part._forward_pre_hooks[key]
        part._parameters[hook.name] = nn.Parameter(weight, requires_grad=False)
