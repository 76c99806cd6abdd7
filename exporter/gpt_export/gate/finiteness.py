"""Where scores that are not finite come from: a weight, or the first module that makes them of numbers.

Minus infinity alone is no fault: masks are made of it, and it is what padding of a vocabulary scores.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from gpt_export_models.problems import some
from numpy.typing import NDArray
from torch import Tensor, nn

logger = logging.getLogger(__name__)

_NEAR_OVERFLOW = 1e15
"""From here on a square, as norms and products of equals take it, comes near the largest float32."""


def is_broken(scores: NDArray[Any]) -> bool:
    """Whether there is NaN or plus infinity among the scores."""
    return bool(np.isnan(scores).any() or np.isposinf(scores).any())


def broken_cause(module: nn.Module, ids: NDArray[np.int64]) -> str:
    """Why `module`, whose scores of `ids` (batch, sequence) are broken, is so: the weight or the part, in words."""
    if weights := list(_broken_weights(module)):
        return f"the model itself gives NaN or infinities: {some(weights, limit=3)}; take another checkpoint"
    where = _first_broken(module, ids)
    found = f": {where}" if where else f" on ids of shape {list(ids.shape)}, with every weight finite"
    return f"the model itself gives NaN or infinities{found}; no export of it can be judged"


def _broken_weights(module: nn.Module) -> Iterator[str]:
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point():
            nans, infinities = int(tensor.isnan().sum()), int(tensor.isposinf().sum())
            for count, what in ((nans, "NaN"), (infinities, "infinities")):
                if count:
                    yield f"{name} holds {count} {what} among {tensor.numel()} elements"


def _first_broken(module: nn.Module, ids: NDArray[np.int64]) -> str:
    """The innermost module that first gives broken numbers, and what went in; empty where none can be told."""
    found: list[str] = []
    names = {part: name for name, part in module.named_modules()}

    def look(part: nn.Module, taken: Any, given: Any) -> None:
        if found or not any(_broken(tensor) for tensor in _tensors(given)):
            return
        inputs = [tensor for tensor in _tensors(taken) if tensor.is_floating_point()]
        here = f"{names[part] or 'the module'} ({type(part).__name__})"
        if any(_broken(tensor) for tensor in inputs):
            found.append(f"they are made in front of {here}, by code outside of any module")
            return
        largest = max((float(tensor.abs().max()) for tensor in inputs if tensor.numel()), default=0.0)
        overflow = ", an overflow of float32" if largest > _NEAR_OVERFLOW else ""
        of = f"of finite numbers of up to {largest:.2g}" if inputs else "of the ids"
        found.append(f"{here} makes them {of}{overflow}")

    handles = [part.register_forward_hook(look) for part in names]
    try:
        with torch.no_grad():
            module(torch.from_numpy(ids))
    except Exception:  # the user's code, or a compiled module that takes no hooks
        logger.info("the origin of broken scores was not found", exc_info=True)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else ""


def _broken(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and bool((tensor.isnan() | tensor.isposinf()).any())


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
