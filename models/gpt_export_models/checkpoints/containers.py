"""Where in a file the model's tensors are: in which dict of a trainer's, behind which prefix of their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gpt_export_models.checkpoints.opaque import attributes
from gpt_export_models.errors import CheckpointError
from gpt_export_models.problems import some

_DEEPEST = 3
_WRAPPER = re.compile(r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What torch puts into names, before them or between their parts, for a part that it has wrapped."""
_AVERAGED = re.compile(r"ema|shadow|averag|swa|teacher", re.IGNORECASE)
"""In what training loops call the running average of a model's weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A state dict found in a file."""

    at: str
    """The keys and the prefix before it, such as `state_dict: model.`; empty at the top."""
    state: Mapping[str, Any]
    """Its tensors by the names that the model itself gives them."""
    beside: Mapping[str, Any]
    """What the file says around it."""
    others: tuple[str, ...] = ()
    """Where the file has more of the same; this one was taken."""
    left_out: tuple[str, ...] = ()
    """Tensors of the same dict that are not the model's."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was chosen and left out, in words for the user."""
        notes = []
        if self.others:
            here = self.at or "the top level"
            notes.append(f"the file has the model more than once; {here} was taken, not {some(self.others)}")
        if self.left_out:
            notes.append(f"{some(self.left_out)} of the file lie beside the model and were left out")
        return tuple(notes)


def find_state(values: Mapping[str, Any], landmark: re.Pattern[str]) -> Held | None:
    """The model's tensors in `values`, in whatever dict and behind whatever prefix; None if no name is a landmark.

    Args:
        landmark: what a name of the family matches from its beginning on, once nothing is before it.

    Raises:
        CheckpointError: several models lie there, and nothing says which is meant.
    """
    found = [held for keys, inner, beside in _dicts(values) for held in _behind_prefixes(keys, inner, beside, landmark)]
    if not found:
        return None
    most = max(len(held.state) for held in found)
    whole = [held for held in found if 2 * len(held.state) > most]
    first = min(whole, key=lambda held: is_averaged(held.at))  # min keeps the order of the file
    refuse_rivals((held.at, held.state) for held in whole if is_averaged(held.at) == is_averaged(first.at))
    others = tuple(held.at or "the top level" for held in whole if held is not first)
    return replace(first, others=others, left_out=() if others else first.left_out)


def refuse_rivals(copies: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Refuses models of other numbers that lie in one file, each given by where it lies and its tensors.

    Raises:
        CheckpointError: there is more than one.
    """
    (at, state), *others = copies
    rivals = [other for other, tensors in others if not _same(state, tensors)]
    if rivals:
        names = [name or "the top level" for name in (at, *rivals)]
        raise CheckpointError(
            f"the file has {len(names)} models of other numbers ({some(names)}), and none is called an average of "
            "another; save the state dict of the one that is meant alone, with torch.save"
        )


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    tensors = {name: tensor for name, tensor in one.items() if isinstance(tensor, Tensor)}
    return all(
        isinstance(found := other.get(name), Tensor) and (found is tensor or torch.equal(found, tensor))
        for name, tensor in tensors.items()
    )


def is_averaged(at: str) -> bool:
    """Whether a training loop calls what lies there a running average of the weights."""
    return _AVERAGED.search(at) is not None


def tensor_names(values: Mapping[str, Any]) -> list[str]:
    """The names in the largest dict of tensors in `values`."""
    found = ([str(key) for key, value in inner.items() if isinstance(value, Tensor)] for _, inner, _ in _dicts(values))
    return max(found, key=len, default=[])


def without_wrappers(name: str) -> str:
    """`name` without what torch's wrappers put into it."""
    return _WRAPPER.sub("", name)


def _dicts(
    values: Mapping[str, Any], keys: tuple[str, ...] = (), beside: Mapping[str, Any] | None = None
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any], Mapping[str, Any]]]:
    """Every dict in `values` that holds tensors, the keys that lead to it, and what lies around it."""
    around = {**(beside or {}), **{str(key): value for key, value in values.items() if not isinstance(value, Tensor)}}
    if any(isinstance(value, Tensor) for value in values.values()):
        yield keys, values, around
    if len(keys) < _DEEPEST:
        for key, value in values.items():
            inner = None if isinstance(value, Tensor) else attributes(value)
            if inner:
                yield from _dicts(inner, (*keys, str(key)), around)


def _behind_prefixes(
    keys: tuple[str, ...], values: Mapping[str, Any], beside: Mapping[str, Any], landmark: re.Pattern[str]
) -> Iterator[Held]:
    """The dict once for each prefix that a landmark stands behind."""
    clean = {without_wrappers(str(name)): value for name, value in values.items()}
    found = (_prefix(name, landmark) for name, value in clean.items() if isinstance(value, Tensor))
    for prefix in dict.fromkeys(prefix for prefix in found if prefix is not None):
        inside = {name.removeprefix(prefix): value for name, value in clean.items() if name.startswith(prefix)}
        outside = tuple(
            name for name, value in clean.items() if not name.startswith(prefix) and isinstance(value, Tensor)
        )
        at = ": ".join((*keys, prefix)) if prefix else ": ".join(keys)
        yield Held(at=at, state=inside, beside=beside, left_out=outside)


def _prefix(name: str, landmark: re.Pattern[str]) -> str | None:
    """What stands before the family's own name, up to a dot; None if `name` is no landmark."""
    start = 0
    while True:
        if landmark.match(name, start):
            return name[:start]
        dot = name.find(".", start)
        if dot < 0:
            return None
        start = dot + 1
