"""An adapter merged into its base, one matrix after the other, in float32; the results lie in a file of their own.

The order of the operations is that of PEFT's `merge`, so that the numbers are its numbers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from gpt_export_models.checkpoints.adapters import Adapter, LowRank, names_of
from gpt_export_models.errors import CheckpointError
from gpt_export_models.problems import some
from gpt_export_models.scratch import scratch_folder


def merge(
    state: Mapping[str, Tensor],
    adapter: Adapter,
    *,
    held_transposed: Callable[[str], bool],
    tied: Mapping[str, str] | None = None,
) -> dict[str, Tensor]:
    """`state` with the changes of `adapter`; a changed tensor is float32 and mapped, the others are the same objects.

    Args:
        held_transposed: whether the matrix of that name is held as (in, out), as `Conv1D` has it.
        tied: parameters that `state` need not have, and the ones that they are while it does not: a head that is the
            embedding. PEFT changes one of the two and leaves the other as it was, except for trained rows of the
            latter, which are both's unless the former has rows of its own.

    Raises:
        CheckpointError: the adapter changes what the state does not have, or not in its shape.
    """
    merged = dict(state)
    at = _places(state, adapter, tied or {})
    for name, other in (tied or {}).items():
        changed = set(at.values())
        if name not in merged and other in merged and (name in changed or other in changed):
            merged[name] = merged[other]
    for theirs, tensor in adapter.replaced.items():
        _check_shape(adapter, theirs, tensor, merged[at[theirs]])
        merged[at[theirs]] = tensor
    for module, (indices, tensor) in adapter.rows.items():
        name = at[f"{module}.weight"]
        merged[name] = _with_rows(adapter, module, merged[name], indices, tensor)
        own = {at[f"{other}.weight"] for other in adapter.rows}
        for other in (n for n, o in (tied or {}).items() if o == name and n not in state and n not in own):
            merged[other] = merged[name]
    for module, product in adapter.products.items():
        name = at[f"{module}.weight"]
        merged[name] = mapped(merged_weight(adapter, module, merged[name], product, held_transposed(name)))
        if product.bias is not None:
            bias = at[f"{module}.bias"]
            _check_shape(adapter, bias, product.bias, merged[bias])
            merged[bias] = merged[bias].float() + product.bias.float() * product.scaling
    return merged


def merged_weight(adapter: Adapter, module: str, weight: Tensor, product: LowRank, held_transposed: bool) -> Tensor:
    """The matrix with the product added, in float32 and in the axes that it is held in."""
    assert product.a is not None
    assert product.b is not None
    base = weight.detach().float()
    delta = product.b.float() @ product.a.float()  # (out, in)
    turned = held_transposed or product.embedding
    delta = (delta.T if turned else delta) * product.scaling
    if base.shape != delta.shape:
        raise CheckpointError(
            f"{adapter.file} changes {some([module])} by {list(delta.shape)}, and the base has {list(base.shape)} "
            "there; "
            "pass the base that the adapter was trained on"
        )
    if product.magnitude is None:
        return base + delta
    rows = base.T if turned else base
    norm = torch.linalg.norm(rows + 1 * (delta.T if turned else delta), dim=1)
    magnitude = product.magnitude.float().flatten()
    if magnitude.shape != norm.shape:
        raise CheckpointError(
            f"{adapter.file} has {magnitude.numel()} magnitudes for {some([module])}, which needs {norm.numel()}; "
            "pass the base that the adapter was trained on"
        )
    factor = (magnitude / norm).view((1, -1) if turned else (-1, 1))
    merged: Tensor = factor * (base + delta)
    return merged


def mapped(tensor: Tensor) -> Tensor:
    """The same numbers in a file that is gone when nobody needs them, so that no model has to fit into memory twice."""
    if not tensor.numel():
        return tensor
    with scratch_folder() as scratch:
        path = scratch / "merged"
        with path.open("wb") as file:  # a page that finds no room once it is mapped ends the process
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, tensor.numel() * tensor.element_size())
        held = torch.from_file(str(path), shared=True, size=tensor.numel(), dtype=tensor.dtype).view(tensor.shape)
        held.copy_(tensor)
        return held


def _places(state: Mapping[str, Tensor], adapter: Adapter, tied: Mapping[str, str]) -> dict[str, str]:
    """By the adapter's names, the ones of the state: the model's own, or those of its body with or without a head."""
    known = {*state, *(name for name, other in tied.items() if other in state)}
    tops = {name.partition(".")[0] for name in state}
    at = {}
    for name in names_of(adapter):
        forms = (name, name.partition(".")[2], *(f"{top}.{name}" for top in sorted(tops)))
        at[name] = next((form for form in forms if form in known), "")
    added = [f"{module}.bias" for module, product in adapter.products.items() if product.bias is not None]
    if unknown := [name for name in added if not at[name] and at[f"{name.removesuffix('bias')}weight"]]:
        raise CheckpointError(
            f"{adapter.file} adds biases (lora_bias) where its base has none ({some(unknown)}), which PEFT does not "
            "merge either; train it without lora_bias, or on a base with biases"
        )
    if lost := [name for name, found in at.items() if not found]:
        raise CheckpointError(
            f"{adapter.file} changes {some(lost)}, which its base does not have; pass the base that the adapter was "
            "trained on (a classification head is exported through a class of your own: package.module:factory)"
        )
    return at


def _check_shape(adapter: Adapter, name: str, new: Tensor, old: Tensor) -> None:
    if new.shape != old.shape:
        raise CheckpointError(
            f"{adapter.file} has {some([name])} {list(new.shape)}, and the base {list(old.shape)}; resize the base as "
            "it was for the training, merge with PEFT, and export the result"
        )


def _with_rows(adapter: Adapter, module: str, table: Tensor, indices: tuple[int, ...], rows: Tensor) -> Tensor:
    if rows.dim() != 2 or rows.shape[1] != table.shape[1] or max(indices, default=0) >= len(table):
        raise CheckpointError(
            f"{adapter.file} has rows {list(rows.shape)} for {some([module])}, and the base {list(table.shape)}; "
            "pass the "
            "base that the adapter was trained on"
        )
    return mapped(table.detach().float().index_copy(0, torch.tensor(indices), rows.float()))
