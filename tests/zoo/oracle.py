"""What a module of the zoo computes, by its own eager code, whatever it wraps its logits in."""

import copy
import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

logger = logging.getLogger(__name__)


def logits_of(module: nn.Module, ids: NDArray[np.int64], *, exact: bool = False) -> NDArray[np.float64]:
    """The module's logits for `ids` (B, T): (B, T, V), or what else it gives; float64 arithmetic with `exact`.

    Modules in half precision are widened to float32 first. With `exact`, a copy computes in float64; one that cannot
    (it makes float32 tensors on its way) is answered in float32.
    """
    judged = widened(unwrapped(module), torch.float64 if exact else torch.float32)
    # Parts that are compiled in place leave no wrapper to look through: they are told to run as they are written.
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        try:
            output = judged(torch.from_numpy(ids))
        except RuntimeError:
            if not exact:
                raise
            logger.info("%s does not compute in float64", type(module).__name__)
            return logits_of(module, ids)
    return found_logits(output).double().numpy()


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside `torch.compile` and `DataParallel` wrappers."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if inner is None and isinstance(module, nn.DataParallel):
            inner = module.module
        if inner is None:
            return module
        module = inner


def widened(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The module if all its floats are `dtype` already, else a copy where they are.

    A dtype that the code casts to (kept as an attribute, or in a configuration) is widened with the weights.
    """
    floats = [value for value in [*module.parameters(), *module.buffers()] if value.is_floating_point()]
    if all(value.dtype == dtype for value in floats):
        return module
    for part in module.modules():  # what hooks computed in the last run cannot be copied with its history
        for name, value in list(vars(part).items()):
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                setattr(part, name, value.detach())
    wide = copy.deepcopy(module)._apply(lambda value: _cast(value, dtype))
    for part in wide.modules():
        for name, value in list(vars(part).items()):
            if isinstance(value, torch.dtype) and value.is_floating_point:
                setattr(part, name, dtype)
            elif isinstance(value, dict) and isinstance(value.get("dtype"), torch.dtype):
                setattr(part, name, {**value, "dtype": dtype})
    return wide


def found_logits(output: Any) -> torch.Tensor:
    """The logits in an output: itself, `logits` by key or attribute, or the first tensor of a tuple or list."""
    if isinstance(output, torch.Tensor):
        return output
    if isinstance(output, Mapping):
        return found_logits(output["logits"])
    if dataclasses.is_dataclass(output) or hasattr(output, "logits"):
        return found_logits(output.logits)
    if isinstance(output, tuple | list):
        return found_logits(next(part for part in output if part is not None))
    raise TypeError(f"no logits in a {type(output).__name__}")


def _cast(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`value` as `dtype` if it is real, as complex of the same precision if not (`Module.to` would drop that half)."""
    if value.is_complex():
        return value.to(dtype.to_complex())
    return value.to(dtype) if value.is_floating_point() else value
