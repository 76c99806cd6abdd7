"""Which initializer of somebody else's graph holds which parameter, by content."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import Tensor

from gpt_export.artifact.onnx_model import OnnxModel
from gpt_export.gate.foreign.halves import HALVES, rounded
from gpt_export.gate.tracing.anchors import part_of
from gpt_export.gate.weights_check import stored_array

_BLOCK_ROWS = 4 * 1024 * 1024
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
_FUSED = ("W_query", "W_key", "W_value")

Names = tuple[str, ...]


def match_weights(
    model: OnnxModel,
    weights: Mapping[str, Tensor],
    first_names: Mapping[str, str],
    coded: Collection[str] = (),
    half: int | None = None,
) -> tuple[dict[str, Names], tuple[str, ...]]:
    """By initializer, the parameters that it holds, and notes on what was not found bit for bit.

    A parameter may lie there as it is, transposed, or side by side with the two others of query, key and value. Those
    that lie there in none of these ways are paired with initializers of the same size that hold nothing known, in the
    order in which the graph uses them: that finds an altered weight.

    Args:
        first_names: for each parameter, the first name of its tensor, as `Source.first_names` has it.
        coded: parameters that the file holds as codes, and that are not looked for. Integers are nobody's weights here.
        half: the type of 16 bits that parameters may be rounded to in the file, of `HALVES`.
    """
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    used = [
        name
        for node in model.graph.node
        for name in node.input
        if name in initializers and initializers[name].data_type in _FLOATS
    ]
    order = list(dict.fromkeys(used))
    sizes = {name: int(np.prod(initializers[name].dims, dtype=np.int64)) for name in order}
    groups = candidate_groups(weights, first_names)
    wanted = {int(sum(tensor.numel() for tensor in tensors)) for tensors in groups.values()}
    by_digest: dict[bytes, list[str]] = defaultdict(list)
    for name in order:
        if sizes[name] in wanted and sizes[name] > 1:
            by_digest[_digest(_widened(stored_array(initializers[name], model.path.parent)))].append(name)

    sources: dict[str, Names] = {}
    left: list[Names] = []
    claims: dict[bytes, list[Names]] = defaultdict(list)
    for names, tensors in groups.items():
        digest = next((digest for digest in _forms(tensors, half) if by_digest.get(digest)), None)
        if digest is None:
            left.append(names)
        else:
            claims[digest].append(names)
    for digest, claimants in claims.items():
        sources |= _shared_out(by_digest[digest], claimants)
    covered = {name for claimants in claims.values() for names in claimants for name in names}
    left = [names for names in left if not covered & set(names)]
    left = [names for names in left if not set(coded) & set(names)]
    single = [names for names in left if not _is_fused(names)]
    missing = [name for names in single for name in names]
    known = {name for digest in claims for name in by_digest[digest]}
    free = [name for name in order if name not in known]
    _pair_by_size([*single, *(names for names in left if _is_fused(names))], groups, free, sizes, sources)
    notes = [f"{len(covered)} of {len(weights)} parameters are in the file bit for bit{_as_rounded(half)}"]
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        notes.append(f"not found bit for bit: {shown}")
    return sources, tuple(notes)


def altered_weights(model: OnnxModel, weights: Mapping[str, Tensor], sources: Mapping[str, Names]) -> tuple[str, ...]:
    """Weights that are the source's but for some elements, in words.

    Another exporter may have good reason to store other numbers, such as a scale folded in; then hardly one is the
    same. Where most are the same bit for bit and some are not, the file was altered.
    """
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    faults = []
    for name, held in sources.items():
        if len(held) > 1 and _is_fused(held):
            source = torch.cat([weights[part].detach() for part in held]).float().numpy()
        else:
            source = weights[held[0]].detach().float().numpy()
        stored = _widened(stored_array(initializers[name], model.path.parent))
        half = initializers[name].data_type if initializers[name].data_type in HALVES else None
        wanted = source if half is None else rounded(source, half)
        for found in (stored, stored.T) if stored.dtype == source.dtype else ():
            if found.shape == source.shape and (fault := _alteration(found, wanted, half)):
                faults.append(f"weight {' + '.join(held)}, held by {name}: {fault}")
                break
    return tuple(faults)


def _alteration(found: NDArray[np.generic], source: NDArray[np.float32], half: int | None) -> str:
    differs = found != source
    if half is not None:
        differs &= np.maximum(np.abs(found), np.abs(source)) > HALVES[half].least
    count = int(np.count_nonzero(differs))
    if not 0 < count < differs.size // 2:
        return ""
    index = tuple(int(i) for i in np.argwhere(differs)[0])
    return (
        f"{count} of {differs.size} elements were altered; element {list(index)} is {found[index]!s} in the file, "
        f"{source[index]!s} in the source"
    )


def _shared_out(initializers: list[str], claimants: list[Names]) -> dict[str, Names]:
    """Which of equal initializers is whose, where several parameters have these very numbers.

    The scales of new norms are all 1: they are used in the order in which the model has them. Of zeros, which may be
    biases or shifts, nobody can say; without them a layer is still found by its weight.
    """
    if len(claimants) == 1:
        return dict.fromkeys(initializers, claimants[0])
    parts = {part_of(name) for names in claimants for name in names}
    if len(parts) > 1 or len(claimants) != len(initializers):
        return {}
    return dict(zip(initializers, claimants, strict=True))


def candidate_groups(weights: Mapping[str, Tensor], first_names: Mapping[str, str]) -> dict[Names, list[Tensor]]:
    """By names of parameters that one initializer may hold, their tensors: tied ones, and query, key and value."""
    return dict(_candidates(weights, first_names))


def _candidates(weights: Mapping[str, Tensor], first_names: Mapping[str, str]) -> Iterator[tuple[Names, list[Tensor]]]:
    ties: dict[str, list[str]] = defaultdict(list)
    for name, first in first_names.items():
        ties[first].append(name)
    for first, names in ties.items():
        yield tuple(names), [weights[first]]
        if f".{_FUSED[0]}." in first:
            trio = [first.replace(_FUSED[0], part) for part in _FUSED]
            if all(name in weights for name in trio):
                yield tuple(trio), [weights[name] for name in trio]


def _forms(tensors: list[Tensor], half: int | None) -> Iterator[bytes]:
    joined = torch.cat([tensor.detach() for tensor in tensors]) if len(tensors) > 1 else tensors[0].detach()
    exact = joined.float().numpy()
    for array in (exact,) if half is None else (rounded(exact, half), exact):
        yield _digest(array)
        if array.ndim == 2:
            yield _digest(array.T)


def _widened(stored: NDArray[np.generic]) -> NDArray[np.generic]:
    """Numbers of 16 bits as float32 ones, the others as they are."""
    return stored.astype(np.float32) if stored.dtype.itemsize == 2 else stored


def _as_rounded(half: int | None) -> str:
    if half is None:
        return ""
    name, judged_as = HALVES[half].name, HALVES[half].judged_as
    return f" once they are rounded to {name}, and it was judged by the limits of {judged_as}"


def _digest(array: NDArray[np.generic]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    rows = array if array.ndim else array.reshape(1)
    step = max(1, _BLOCK_ROWS // max(1, rows[:1].nbytes))
    for start in range(0, rows.shape[0], step):
        digest.update(np.ascontiguousarray(rows[start : start + step]).view(np.uint8).data)
    return digest.digest()


def _is_fused(names: Names) -> bool:
    return len(names) == len(_FUSED) and all(f".{part}." in name for part, name in zip(_FUSED, names, strict=True))


def _pair_by_size(
    left: list[Names],
    groups: Mapping[Names, list[Tensor]],
    order: list[str],
    sizes: Mapping[str, int],
    sources: dict[str, Names],
) -> None:
    for names in left:
        if any(name in held for held in sources.values() for name in names):
            continue
        size = sum(tensor.numel() for tensor in groups[names])
        free = next((name for name in order if name not in sources and sizes[name] == size), None)
        if free is not None:
            sources[free] = names
