"""The error that eager float32 itself has, measured against the same module in float64."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Iterator
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gpt_export.gate.parity import root_mean_square, rounded
from gpt_export.gate.wide_masks import WideMasks

logger = logging.getLogger(__name__)

ASSUMED_NOISE = 1e-5
"""Taken for modules that do not run in float64."""
NOISE_CEILING = 2.0**-7
"""Above this eager says too little to judge by: it draws at random (dropout left on) or magnifies rounding too far."""


def measure_noise(module: nn.Module, ids: NDArray[np.int64]) -> float | None:
    """Largest float32 error over `ids`, relative to the root mean square of the logits; None if float64 fails."""
    error = measure_error(module, ids)
    return None if error is None else rounded(error[0] / error[1]) if error[1] else 0.0


def measure_error(module: nn.Module, ids: NDArray[np.int64]) -> tuple[float, float] | None:
    """Largest float32 error over `ids`, and the root mean square of the logits; None if float64 fails.

    This is the forward error that rounding causes (Higham, "Accuracy and Stability of Numerical Algorithms", ch. 3),
    measured instead of bounded.
    """
    tokens = torch.from_numpy(ids)
    with torch.no_grad():
        single: Tensor = module(tokens)
        double = run_in_double(module, tokens)
    if double is None or double.dtype != torch.float64:
        return None
    single, double = (scores.reshape(len(ids), -1, scores.shape[-1]) for scores in (single, double))
    reference = double.numpy()
    scale = root_mean_square(reference, np.ones(reference.shape[:2], dtype=bool))
    worst = max(float((single[:, i].double() - double[:, i]).abs().max()) for i in range(single.shape[1]))
    return worst, scale


@torch.no_grad()
def run_in_double(module: nn.Module, tokens: Tensor) -> Tensor | None:
    """What `module` returns in float64; None if it does not run so."""
    try:
        with in_double(module):
            return cast(Tensor, module(tokens))
    except Exception:  # a forward that reads its submodules' weights needs all of them at once
        try:
            with WideMasks():
                return cast(Tensor, copy.deepcopy(module).double()(tokens))
        except Exception as error:  # a dtype written into the module
            logger.info("the module does not run in float64: %s", error)
            return None


@contextlib.contextmanager
def in_double(module: nn.Module) -> Iterator[None]:
    """Runs `module` in float64, one submodule at a time.

    Each submodule's own parameters and float buffers are widened just before its forward and put back after it, so
    that memory grows by one layer, not by twice the model.
    """
    kept: dict[nn.Module, tuple[dict[str, nn.Parameter | None], dict[str, Tensor | None]]] = {}

    def widen(part: nn.Module, _args: object) -> None:
        kept[part] = (dict(part._parameters), dict(part._buffers))
        for name, parameter in part._parameters.items():
            if parameter is not None and parameter.is_floating_point():
                part._parameters[name] = nn.Parameter(parameter.detach().double(), requires_grad=False)
        for name, buffer in part._buffers.items():
            if buffer is not None and buffer.is_floating_point():
                part._buffers[name] = buffer.double()

    def restore(part: nn.Module, _args: object = None, _out: object = None) -> None:
        if part in kept:
            parameters, buffers = kept.pop(part)
            part._parameters.update(parameters)
            part._buffers.update(buffers)

    handles = []
    for part in module.modules():
        if type(part) is nn.Embedding and part.max_norm is None:
            # A lookup is exact in any precision: what comes out is widened, not the table.
            handles.append(part.register_forward_hook(lambda _part, _args, out: out.double()))
            continue
        handles.append(part.register_forward_pre_hook(widen))
        handles.append(part.register_forward_hook(restore))
    try:
        with WideMasks():
            yield
    finally:
        for handle in handles:
            handle.remove()
        for part in list(kept):
            restore(part)
