"""The weights of a staged file, bit for bit beside their source. Shares no code with the writer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from torch import Tensor

from gpt_export.artifact.onnx_model import OnnxModel
from gpt_export.gate.report import WeightsResult
from gpt_export.weights.layout import Layout

_BLOCK_ELEMENTS = 4 * 1024 * 1024


def check_weights(model: OnnxModel, weights: Mapping[str, Tensor], layouts: Mapping[str, Layout]) -> WeightsResult:
    """Whether every initializer with a layout holds exactly its source's numbers.

    Args:
        model: the `.onnx` file, its external data beside it.
        weights: source tensors; a narrower type than the file's counts as equal when widening gives the same bits.
        layouts: by initializer, the source and whether its axes are swapped.
    """
    folder = model.path.parent
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    mismatches, size_bytes = [], 0
    for name, layout in layouts.items():
        if name not in initializers:
            mismatches.append(f"weight {layout.label}: {model.path.name} has no initializer {name}")
            continue
        stored = stored_array(initializers[name], folder)
        size_bytes += stored.nbytes
        mismatches += _differences(stored.T if layout.transposed else stored, layout.sources, weights)
    return WeightsResult(checked=len(layouts), size_bytes=size_bytes, mismatches=tuple(mismatches))


def check_torchscript(module: torch.jit.ScriptModule, weights: Mapping[str, Tensor]) -> tuple[str, ...]:
    """What is wrong with the weights of a loaded `model.pt`, in words; empty if they are the source's."""
    stored = dict(itertools.chain(module.named_parameters(remove_duplicate=False), module.named_buffers()))
    faults = []
    for name, source in weights.items():
        if name not in stored:
            continue  # torch drops what no method reads
        held = stored[name].detach()
        held = held.float() if held.dtype == torch.bfloat16 else held  # which numpy does not have
        fault = _difference(held.numpy(), source.detach())
        if fault is None and source.is_floating_point() and not _is_finite_or_mask(source):
            fault = "holds NaN or Inf"
        if fault:
            faults.append(f"weight {name} of model.pt: {fault}")
    return tuple(faults)


def _is_finite_or_mask(source: Tensor) -> bool:
    """Whether every element is a finite number, or the tensor hides by -inf and has one other number at most."""
    finite = source[torch.isfinite(source)]
    if len(finite) == source.numel():
        return True
    return bool((source[~torch.isfinite(source)] == -torch.inf).all()) and len(torch.unique(finite)) <= 1


def stored_array(tensor: TensorProto, folder: Path) -> NDArray[np.generic]:
    """An initializer's elements; those in external data, which lies in `folder`, are mapped."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return numpy_helper.to_array(tensor)
    where = {entry.key: entry.value for entry in tensor.external_data}
    return np.memmap(
        folder / where["location"],
        dtype=onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type),
        mode="r",
        offset=int(where.get("offset", 0)),
        shape=tuple(tensor.dims),
    )


def _differences(stored: NDArray[np.generic], sources: tuple[str, ...], weights: Mapping[str, Tensor]) -> Iterator[str]:
    """What is wrong with each of the sources that lie behind one another in `stored`, in words."""
    if len(sources) == 1:
        parts = [stored]
    else:
        lengths = [weights[source].shape[0] for source in sources]
        if stored.shape[:1] != (sum(lengths),):
            yield f"weight {' + '.join(sources)}: has shape {list(stored.shape)}, not {sum(lengths)} rows"
            return
        parts = np.split(stored, np.cumsum(lengths)[:-1])
    for source, part in zip(sources, parts, strict=True):
        if fault := _difference(part, weights[source].detach()):
            yield f"weight {source}: {fault}"


def _difference(stored: NDArray[np.generic], source: Tensor) -> str | None:
    """Where the two first differ, in words; None if nowhere."""
    if stored.shape != tuple(source.shape):
        return f"has shape {list(stored.shape)} in the file, {list(source.shape)} in the source"
    if stored.ndim == 0:
        stored, source = stored.reshape(1), source.reshape(1)
    step = max(1, _BLOCK_ELEMENTS // max(1, stored.size // max(1, stored.shape[0])))
    for start in range(0, stored.shape[0], step):
        found = np.ascontiguousarray(stored[start : start + step])
        expected = source[start : start + step].to(torch.from_numpy(found[:0].copy()).dtype).contiguous().numpy()
        if np.array_equal(_bits(found), _bits(expected)):
            continue
        index = np.argwhere(_bits(found) != _bits(expected))[0]
        at = [start + int(index[0]), *(int(i) for i in index[1:])]
        return f"element {at} is {found[tuple(index)]!s} in the file, {expected[tuple(index)]!s} in the source"
    return None


def _bits(array: NDArray[np.generic]) -> NDArray[np.generic]:
    return array.view({1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[array.dtype.itemsize])
