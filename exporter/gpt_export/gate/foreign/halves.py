"""Graphs whose matrices are numbers of 16 bits, as converters make them of float32 ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto

from gpt_export.artifact.onnx_model import OnnxModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Half:
    """A type of 16 bits."""

    name: str
    dtype: torch.dtype
    judged_as: str
    """The precision of ours whose limits it is held to."""
    least: float
    """What a converter may put in place of smaller numbers: onnxconverter-common has none between 0 and 1e-7."""


HALVES: Mapping[int, Half] = {
    TensorProto.FLOAT16: Half(name="fp16", dtype=torch.float16, judged_as="fp16", least=2.0**-23),
    # 8 significant bits, as codes of int8 have
    TensorProto.BFLOAT16: Half(name="bf16", dtype=torch.bfloat16, judged_as="int8", least=2.0**-23),
}
"""By the type of an initializer."""


def half_type(model: OnnxModel) -> int | None:
    """The 16-bit type that most of the matrices are of which the graph reads, of `HALVES`; None if none is."""
    read = {name for node in model.graph.node for name in node.input}
    found = [
        tensor.data_type
        for tensor in model.graph.initializer
        if tensor.data_type in HALVES and len(tensor.dims) == 2 and tensor.name in read
    ]
    return max(sorted(set(found)), key=found.count, default=None)


def rounded(array: NDArray[np.float32], half: int) -> NDArray[np.float32]:
    """The numbers as that type has them, float32."""
    found: NDArray[np.float32] = torch.from_numpy(array).to(HALVES[half].dtype).float().numpy()
    return found
