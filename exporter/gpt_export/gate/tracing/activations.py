"""The same activations out of both worlds: eager modules through hooks, graphs through extra outputs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gpt_export.artifact.onnx_bytes import read_proto
from gpt_export.gate.case import Case
from gpt_export.gate.tracing.anchors import End
from gpt_export.runtime.options import CPU, session_options

Array = NDArray[np.floating[Any]]
Feed = Callable[[ort.InferenceSession, Case, Sequence[str]], list[dict[str, Array]]]
"""Runs a case, returns the named tensors of each chunk."""


def eager_activations(module: nn.Module, case: Case, names: set[str]) -> dict[tuple[str, End], Array]:
    """Inputs and outputs of the named submodules, (positions, width), over the tokens of the case's rows.

    Rows without padding are run together, others alone and without it.
    """
    kept: dict[tuple[str, End], list[Array]] = {}
    running: list[tuple[int, int]] = []

    def keep(name: str, end: End, value: object) -> None:
        if isinstance(value, Tensor) and value.is_floating_point():
            rows, sequence = running[-1]
            array = value.detach().reshape(-1, value.shape[-1]).numpy().copy()
            shared = len(array) == sequence  # positions, the same for every row
            kept.setdefault((name, end), []).append(np.tile(array, (rows, 1)) if shared else array)

    def hook(name: str, _part: nn.Module, args: tuple[object, ...], out: object) -> None:
        keep(name, "input", args[0])
        keep(name, "output", out)

    handles = [
        part.register_forward_hook(functools.partial(hook, name))
        for name, part in module.named_modules(remove_duplicate=False)
        if name in names
    ]
    try:
        with torch.no_grad():
            for ids in [case.ids] if case.mask.all() else case.rows():
                running.append((ids.shape[0], ids.shape[1]))
                module(torch.from_numpy(ids))
    finally:
        for handle in handles:
            handle.remove()
    return {key: np.concatenate(parts) for key, parts in kept.items()}


def graph_activations(
    path: Path, case: Case, tensors: Sequence[str], feed: Feed, *, as_written: bool = False
) -> dict[str, Array]:
    """The named tensors of the graph in `path`, (positions, width), over the tokens of the case's rows.

    A tensor whose axes cannot be read as batch and sequence is left out.
    """
    session = session_with_outputs(path, tensors, as_written=as_written)
    chunks = feed(session, case, tensors)
    found = {}
    for name in tensors:
        parts = [
            _positions(chunk[name], case.mask[:, start:stop])
            for chunk, (start, stop) in zip(chunks, case.cuts(), strict=True)
        ]
        if all(part is not None for part in parts):
            whole = np.concatenate([part for part in parts if part is not None], axis=1)
            found[name] = whole[case.mask.astype(bool)]
    return found


def session_with_outputs(path: Path, tensors: Sequence[str], *, as_written: bool = False) -> ort.InferenceSession:
    """A session on the graph in `path` that also returns `tensors`. Nothing is written; external data is read in place.

    Args:
        as_written: whether onnxruntime runs the nodes as they stand, without its own optimisations.

    Raises:
        Exception: whatever onnxruntime raises for a graph that it cannot load.
    """
    model = read_proto(path)
    outputs = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in outputs)
    # Its errors are raised; the gate says what they mean.
    options = session_options(prepack=False, as_written=as_written, silent=True, external_data=path.parent)
    return ort.InferenceSession(model.SerializeToString(), options, providers=list(CPU))


def _positions(array: Array, mask: NDArray[np.int64]) -> Array | None:
    """An activation as (batch, sequence, width), None if its axes do not say which is which."""
    batch, sequence = mask.shape
    width = array.shape[-1]
    if array.ndim >= 2 and array.size == batch * sequence * width:
        return array.reshape(batch, sequence, width)
    if array.size == sequence * width:  # positions, the same for every row
        return np.broadcast_to(array.reshape(1, sequence, width), (batch, sequence, width))
    return None


def joined(activations: Mapping[tuple[str, End], Array], modules: Sequence[str], end: End) -> Array | None:
    """What eager has for an anchor: one module's activation, or several outputs side by side."""
    if end == "input":
        return activations.get((modules[0], end))
    parts = [activations.get((name, end)) for name in modules]
    known = [part for part in parts if part is not None]
    return np.concatenate(known, axis=-1) if len(known) == len(parts) else None
