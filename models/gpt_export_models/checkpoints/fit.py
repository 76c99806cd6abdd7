"""Whether stored tensors, a layout and a declared configuration agree, and the canonical tensors if they do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import torch
from torch import Tensor

from gpt_export_models.checkpoints.contract import Form, expected_shapes
from gpt_export_models.checkpoints.layout import Axis, Layout
from gpt_export_models.checkpoints.stored import Stored
from gpt_export_models.config import GPTConfig
from gpt_export_models.errors import CheckpointError, ConfigError
from gpt_export_models.problems import some

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What a configuration says about sizes and form, to be held against the weights."""

    source: str
    """What to call it in messages: `config.json`, `model_args`."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Values by their name in that configuration."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Names in that configuration -> fields of `GPTConfig`."""

    def disagreements(self, found: Mapping[str, Any]) -> list[str]:
        """A few words on each declared value that differs from the one found in the weights."""
        return [
            f"{name} is {some([repr(self.values[name])])} in {self.source} but {found[ours]} in the weights"
            for name, ours in self.names.items()
            if name in self.values and found.get(ours) is not None and self.values[name] != found[ours]
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """Weights that fit: their canonical tensors, and the sizes read off them by `GPTConfig`'s field names."""

    tensors: dict[str, Tensor]
    sizes: dict[str, Any]

    def in_order(self, config: GPTConfig) -> dict[str, Tensor]:
        """The tensors in the order of `GPTModel(config).state_dict()`."""
        return {name: self.tensors[name] for name in expected_shapes(config)}


def fit(stored: Stored, state: Mapping[str, Any], layout: Layout, form: Form, declared: Declared) -> Fitted:
    """The canonical tensors in `state`, which is `stored`'s state dict without buffers.

    Raises:
        CheckpointError: with every disagreement, and every missing, unexpected and misshapen tensor.
    """
    n_layers = layout.count_layers(state)
    axes = layout.stored_axes(form, n_layers)
    sizes = _sizes(state, axes)
    found = sizes | {"n_layers": n_layers, "qkv_bias": form.qkv_bias}
    problems = [
        *declared.disagreements(found),
        *_listed("missing", [name for name in axes if name not in state]),
        *_listed("unexpected", [name for name in state if name not in axes]),
        *_listed("misshapen", _misshapen(state, axes, sizes)),
        *_listed(
            "of a kind that is not read (only plain float32, float16 and bfloat16 tensors are)", _unusable(state, axes)
        ),
    ]
    if problems:
        raise CheckpointError(
            f"{stored.path} and its configuration do not make a whole GPT: {'; '.join(problems)};"
            " pass the configuration that the weights were trained with, save the whole state dict again, or export a"
            f" changed model through its own class: gpt-export onnx package.module:factory --weights {stored.path}"
        )
    return Fitted(tensors=layout.canonical(state, form, n_layers), sizes=found)


def to_config(stored: Stored, fitted: Fitted, **choices: Any) -> GPTConfig:
    """The configuration with the fitted sizes and `choices`.

    Raises:
        CheckpointError: they do not make a possible GPT, as when the heads do not divide its width.
    """
    values = fitted.sizes | choices
    if values["hidden_dim"] == 4 * values["emb_dim"]:
        del values["hidden_dim"]
    try:
        return GPTConfig(**values)
    except ConfigError as error:
        raise CheckpointError(f"{stored.path} and its configuration do not describe a possible GPT: {error}") from error


def without_buffers(state: Mapping[str, Any], layout: Layout) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`state` without the layout's buffers, and a note on how many those were."""
    kept = {name: value for name, value in state.items() if not layout.is_buffer(name)}
    dropped = len(state) - len(kept)
    return kept, (f"{dropped} attention mask buffers were ignored, they are no weights",) if dropped else ()


def share_storage(a: Any, b: Any) -> bool:
    """Whether both are one and the same tensor in memory."""
    if not (_is_plain(a) and _is_plain(b)):
        return False
    return (a.data_ptr(), a.shape, a.stride(), a.dtype) == (b.data_ptr(), b.shape, b.stride(), b.dtype)


def are_equal(a: Any, b: Any) -> bool:
    """Whether both are tensors of the same dtype, shape and values; those of one storage are not read."""
    if share_storage(a, b):
        return True
    return _is_plain(a) and _is_plain(b) and a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)


def _is_plain(value: Any) -> TypeGuard[Tensor]:
    # torch.load also makes sparse, nested and meta tensors, which have no addresses or no shapes
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and not value.is_nested
        and value.device.type == "cpu"
        and value.dtype in DTYPES
    )


def _sizes(state: Mapping[str, Any], axes: Mapping[str, tuple[Axis, ...]]) -> dict[str, int | None]:
    """Each size as most tensors have it, so that one misshapen tensor does not make all others look wrong."""
    votes: dict[str, Counter[int]] = {dim: Counter() for row in axes.values() for _, dim in row}
    for name, row in axes.items():
        value = state.get(name)
        if _is_plain(value) and value.dim() == len(row):
            for size, (times, dim) in zip(value.shape, row, strict=True):
                votes[dim].update([size // times] if size % times == 0 else [])
    return {dim: max(counts, key=lambda size: counts[size]) if counts else None for dim, counts in votes.items()}


def _misshapen(
    state: Mapping[str, Any], axes: Mapping[str, tuple[Axis, ...]], sizes: Mapping[str, int | None]
) -> list[str]:
    words = []
    for name, row in axes.items():
        if _is_plain(value := state.get(name)):
            fits = tuple("?" if (size := sizes[dim]) is None else str(times * size) for times, dim in row)
            shape = tuple(map(str, value.shape))
            if len(shape) != len(fits) or any(b not in ("?", a) for a, b in zip(shape, fits, strict=True)):
                words.append(f"{name} [{' x '.join(shape)}] instead of [{' x '.join(fits)}]")
    return words


def _unusable(state: Mapping[str, Any], axes: Mapping[str, tuple[Axis, ...]]) -> list[str]:
    words = []
    for name in axes:
        value = state.get(name)
        if isinstance(value, Tensor) and not _is_plain(value):
            words.append(f"{name} ({value.dtype}, {value.layout}, on {value.device})")
        elif name in state and not isinstance(value, Tensor):
            words.append(f"{name} (a {type(value).__name__}, not a tensor)")
    return words


def _listed(what: str, items: list[str]) -> list[str]:
    return [f"{what} {some(items)}"] if items else []
