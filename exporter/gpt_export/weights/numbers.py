"""A weight's numbers as its graph has them: widened where they are stored in 16 bits, joined, axes swapped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpt_export.weights.layout import Layout

HALVES = (torch.bfloat16, torch.float16)


def numbers_of(tensor: Tensor) -> NDArray[Any]:
    """The elements of a source, in its shape: float32 where it is in 16 bits, which numpy may not have, else as it is.

    A tensor in the processor's memory that is not widened is mapped, and not copied.
    """
    tensor = tensor.detach().cpu()
    array: NDArray[Any] = (tensor.float() if tensor.dtype in HALVES else tensor).numpy()
    return array


def laid_out(layout: Layout, weights: Mapping[str, Tensor]) -> NDArray[Any]:
    """The weight that `layout` makes of its sources, contiguous; not for one that is stored as codes.

    Raises:
        KeyError: a source is none of `weights`.
    """
    parts = [numbers_of(weights[source]) for source in layout.sources]
    whole = np.concatenate(parts) if len(parts) > 1 else parts[0]
    return np.ascontiguousarray(whole.T) if layout.transposed and whole.ndim > 1 else whole
