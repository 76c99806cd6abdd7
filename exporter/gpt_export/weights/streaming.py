"""Source tensors to initializers of the file, streamed: planned first, then written a few megabytes at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpt_export.artifact.hashing import HashingWriter
from gpt_export.errors import GraphError
from gpt_export.progress import OnPart, ignore_part
from gpt_export.weights.layout import Layout, layout_of
from gpt_export.weights.mapped import let_go

logger = logging.getLogger(__name__)

SELF_CONTAINED_BYTES = 16 * 1000 * 1000
"""From this many bytes of weights on they go into a file of their own; onnxruntime maps that one."""
INLINE_BYTES = 1024
"""Tensors up to this size stay in the model file beside external data."""
ALIGNMENT = 4096
"""Offsets in external data are multiples of a page, so that every tensor can be mapped where it lies."""
CHUNK_BYTES = 16 * 1024 * 1024
LET_GO_BYTES = 256 * 1024 * 1024
"""How much of a mapped checkpoint stays in memory after it was read."""


@dataclass(frozen=True, slots=True)
class PlannedWeight:
    """Where one weight goes: `offset` in the external data, or None in the model file."""

    name: str
    layout: Layout
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int | None

    @property
    def size_bytes(self) -> int:
        """Bytes of the weight's elements."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def plan(model: ir.Model, weights: Mapping[str, Tensor], *, external: bool | None = None) -> list[PlannedWeight]:
    """Where each weight of the graph goes, in the order of the graph.

    Args:
        external: whether large weights go into a file of their own; None lets their total size decide.

    Raises:
        GraphError: the graph asks for a weight that the source does not have, or of another shape.
    """
    inputs = [(value, layout) for value in model.graph.inputs if (layout := layout_of(value))]
    planned = [_place(value, layout, weights, None) for value, layout in inputs]
    total = sum(weight.size_bytes for weight in planned)
    if not (total >= SELF_CONTAINED_BYTES if external is None else external):
        return planned
    offset = 0
    for i, (value, layout) in enumerate(inputs):
        if planned[i].size_bytes > INLINE_BYTES:
            planned[i] = _place(value, layout, weights, offset)
            offset += -(-planned[i].size_bytes // ALIGNMENT) * ALIGNMENT
    return planned


def to_initializers(
    model: ir.Model, planned: list[PlannedWeight], weights: Mapping[str, Tensor], location: str
) -> ir.Model:
    """`model` with its weights as initializers: small ones by value, the others as references into `location`."""
    model = model.clone()
    by_name = {weight.name: weight for weight in planned}
    for value in [value for value in model.graph.inputs if value.name in by_name]:
        weight = by_name[str(value.name)]
        if weight.offset is None:
            rows = [np.array(chunk) for chunk in chunks(weight, weights)]
            array = np.concatenate([np.empty(0, _numpy_dtype(weight.dtype)), *rows]).reshape(weight.shape)
            value.const_value = ir.Tensor(array, name=weight.name)
        else:
            value.const_value = ir.ExternalTensor(
                location,
                weight.offset,
                weight.size_bytes,
                ir.DataType.from_numpy(_numpy_dtype(weight.dtype)),
                shape=ir.Shape(weight.shape),
                name=weight.name,
            )
        model.graph.inputs.remove(value)
        model.graph.register_initializer(value)
    return model


def write_external(
    planned: list[PlannedWeight], weights: Mapping[str, Tensor], path: Path, on_part: OnPart = ignore_part
) -> str:
    """Writes the external data to `path`; returns its SHA-256, taken while it was written.

    Raises:
        OSError: the file cannot be written.
        GraphError: a weight holds NaN or Inf.
    """
    read: list[Tensor] = []
    with HashingWriter(path) as out:
        for done, weight in enumerate(planned):
            on_part(done, len(planned), "weight")
            if weight.offset is not None:
                out.pad_to(weight.offset)
                for chunk in chunks(weight, weights):
                    out.write(chunk)
                read += [weights[source] for source in weight.layout.inputs]
                if sum(tensor.nbytes for tensor in read) > LET_GO_BYTES:
                    let_go(read)
                    read.clear()
    let_go(read)
    logger.info("wrote %d bytes of weights", out.size_bytes)
    return out.sha256


def chunks(weight: PlannedWeight, weights: Mapping[str, Tensor]) -> Iterator[NDArray[np.generic]]:
    """The weight in its stored layout and type, as contiguous flat arrays of at most about `CHUNK_BYTES`.

    Raises:
        GraphError: it holds NaN or Inf.
    """
    for part in _row_ranges(weight, [weights[source].detach() for source in weight.layout.inputs]):
        flat = part.to(weight.dtype).contiguous().reshape(-1)
        if flat.is_floating_point() and not _all_finite(flat) and not _is_mask(flat):
            if _all_finite(part.float().reshape(-1)):
                raise GraphError(
                    f"the weight {weight.layout.label} leaves the range of {weight.dtype}; leave that precision out"
                )
            raise GraphError(f"the weight {weight.layout.label} holds NaN or Inf; export a checkpoint without them")
        yield flat.numpy()


def _row_ranges(weight: PlannedWeight, tensors: list[Tensor]) -> Iterator[Tensor]:
    """Consecutive rows of the stored weight, a few at a time: views of the sources where there is only one."""
    stored_rows = weight.shape[0] if weight.shape else 1
    step = max(1, CHUNK_BYTES // max(1, weight.size_bytes // max(1, stored_rows)))
    if weight.layout.transposed and weight.layout.coded is None:  # a stored row runs through a column of every source
        for start in range(0, stored_rows, step):
            columns = [tensor[:, start : start + step].T for tensor in tensors]
            yield columns[0] if len(columns) == 1 else torch.cat(columns, dim=1)
    else:
        for tensor in tensors:
            rows = tensor if tensor.ndim else tensor.reshape(1)
            for start in range(0, rows.shape[0], step):
                yield rows[start : start + step]


def _is_mask(flat: Tensor) -> bool:
    """Whether these are numbers of an attention mask: -inf beside one number, if any."""
    finite = flat[torch.isfinite(flat)]
    hidden = bool((flat[~torch.isfinite(flat)] == -torch.inf).all())
    return hidden and (finite.numel() == 0 or bool((finite == finite[0]).all()))


def _all_finite(flat: Tensor) -> bool:
    # One pass at memory speed: the dot product is finite unless an element is not, or the sum overflows.
    return bool(torch.isfinite(torch.dot(flat, flat))) or bool(torch.isfinite(flat).all())


def _place(value: ir.Value, layout: Layout, weights: Mapping[str, Tensor], offset: int | None) -> PlannedWeight:
    assert value.shape is not None
    shape = value.shape.numpy()
    if layout.coded is None:
        _check_source(layout, weights, shape)
    assert value.dtype is not None
    if value.dtype == ir.DataType.BFLOAT16:
        raise GraphError(
            f"the weight {layout.label} is bfloat16, which onnxruntime does not compute with on a CPU; "
            "convert the module with .float()"
        )
    dtype = torch.from_numpy(np.empty(0, value.dtype.numpy())).dtype
    return PlannedWeight(str(value.name), layout, dtype, shape, offset)


def _check_source(layout: Layout, weights: Mapping[str, Tensor], shape: tuple[int, ...]) -> None:
    if missing := [source for source in layout.inputs if source not in weights]:
        raise GraphError(f"the graph needs the weight {missing[0]}, which the source does not have")
    shapes = [tuple(weights[source].shape) for source in layout.inputs]
    joined = shapes[0] if len(shapes) == 1 else (sum(each[0] for each in shapes), *shapes[0][1:])
    if (joined[::-1] if layout.transposed else joined) != shape:
        raise GraphError(f"the weight {layout.label} is {list(joined)}, the graph needs {list(shape)} (stored layout)")


def _numpy_dtype(dtype: torch.dtype) -> np.dtype[np.generic]:
    return torch.empty(0, dtype=dtype).numpy().dtype
