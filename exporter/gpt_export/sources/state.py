"""A checkpoint file's weights in the user's own class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from gpt_export_models.blank import InitialisersSkipped, blank
from gpt_export_models.checkpoints.containers import is_averaged, refuse_rivals
from gpt_export_models.checkpoints.stored import read_stored
from gpt_export_models.problems import some
from torch import Tensor, nn

from gpt_export.errors import CheckpointError
from gpt_export.sources.plain import unwrapped
from gpt_export.weights.numbers import HALVES

_DEEPEST = 3


def loaded(make: Callable[[], nn.Module], path: Path, seed: int) -> tuple[nn.Module, tuple[str, ...]]:
    """The module of `make` in eval mode on the weights in the file at `path`, which stay mapped, and notes.

    The state dict is looked for by what fits the module: in whatever container, behind whatever prefix of the names
    that `torch.compile`, `DataParallel` or a trainer has put before them. Only tensors, numbers and strings are read.

    Raises:
        CheckpointError: the file cannot be read, or its names and shapes are not the module's; all are in the message.
        SourceError: the module cannot be made.
    """
    stored = read_stored(path)
    module = _made(make, seed)
    wanted = module.state_dict(keep_vars=True)
    state, chosen = best_fit(stored.values, wanted)
    if state is None:
        raise CheckpointError(f"{path} holds no tensors by name but {some(stored.values, limit=5) or 'nothing'}")
    notes = [*stored.notes, *chosen]
    shown = dict(module.named_buffers(remove_duplicate=False)).keys() - wanted.keys()
    if dropped := sorted(state.keys() & shown):
        notes.append(f"{some(dropped)} of the file were left out: the module computes them")
        state = {name: tensor for name, tensor in state.items() if name not in shown}
    _complete_ties(wanted, state)
    _check(module, path, wanted, state)
    if hollow(module, besides=wanted):  # what is computed when the module is made needs numbers
        module = _made(make, seed, device="cpu")
    _assign(module, state)
    return module.eval().requires_grad_(False), tuple(notes)


def best_fit(values: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[dict[str, Tensor] | None, tuple[str, ...]]:
    """Of all dicts of tensors in a file, and all prefixes of their names, the one that has most of the wanted names.

    Of several that have as many, the one that is not called a running average; a note says which was taken.

    Raises:
        CheckpointError: several of other numbers have as many, and nothing says which is meant.
    """
    found = [each for at, inner in _dicts(values) for each in _without_prefixes(inner, at)]
    known = [(len(state.keys() & wanted.keys()), at, state) for at, state in found]
    if not known:
        return None, ()
    most = max(count for count, _, _ in known)
    equal = [(at, state) for count, at, state in known if count == most]
    at, state = min(equal, key=lambda each: (is_averaged(each[0]), len(each[1])))
    rivals = [(other, {name: held[name] for name in wanted if name in held}) for other, held in ((at, state), *equal)]
    if most:
        refuse_rivals(each for each in rivals if is_averaged(each[0]) == is_averaged(at))
    taken = rivals[0][1]
    others = sorted({other for other, held in rivals if any(held[name] is not taken.get(name) for name in held)} - {at})
    others = others if most else []
    note = f"the file has the model more than once; {at or 'the top level'} was taken, not {some(others)}"
    return state, (note,) if others else ()


def _dicts(values: Mapping[str, Any], keys: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every dict of tensors, and the keys that lead to it."""
    tensors = {str(name): value for name, value in values.items() if isinstance(value, Tensor)}
    if tensors:
        yield ": ".join(keys), tensors
    if len(keys) < _DEEPEST:
        for key, value in values.items():
            if isinstance(value, Mapping):
                yield from _dicts(value, (*keys, str(key)))


def _without_prefixes(state: dict[str, Tensor], at: str) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The dict as it is, without `_orig_mod.` anywhere, and without each first part that all names share."""
    yield at, state
    state = {name.replace("_orig_mod.", ""): tensor for name, tensor in state.items()}
    yield at, state
    firsts = dict.fromkeys(name.partition(".")[0] for name in state)  # in the order of the file
    for first in firsts:  # a trainer keeps other things beside the model
        inner = {
            name.removeprefix(f"{first}."): tensor for name, tensor in state.items() if name.startswith(f"{first}.")
        }
        if inner:
            where = f"{at}: {first}." if at else f"{first}."
            where = at if len(firsts) == 1 else where
            yield where, inner
            if len(firsts) == 1 and len({name.partition(".")[0] for name in inner}) == 1:
                yield from _without_prefixes(inner, where)


def _made(make: Callable[[], nn.Module], seed: int, device: str = "meta") -> nn.Module:
    """The module, if it can on the meta device; on the CPU only parameters stay unset, since the file has them all."""
    torch.manual_seed(seed)
    if device == "meta":
        try:
            module = unwrapped(blank(make))
        except Exception:  # the user's code needs numbers to be made, or the same fails below
            return _made(make, seed, "cpu")
        return module
    with InitialisersSkipped(parameters_only=True):
        return unwrapped(make().eval())


def hollow(module: nn.Module, besides: Mapping[str, Any]) -> bool:
    """Whether the module has tensors without numbers that no file has: buffers that are not saved, plain attributes."""
    saved = {id(tensor) for tensor in besides.values()}
    buffers = (tensor for tensor in module.buffers() if id(tensor) not in saved)
    loose = (value for part in module.modules() for value in _tensors_in(vars(part)))
    return any(tensor.device.type == "meta" for tensor in (*buffers, *loose))


def _tensors_in(values: Mapping[str, Any]) -> Iterator[Tensor]:
    for name, value in values.items():
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from (item for item in value if isinstance(item, Tensor))
        elif isinstance(value, dict) and name not in ("_parameters", "_buffers", "_modules"):
            yield from (item for item in value.values() if isinstance(item, Tensor))


def _complete_ties(wanted: Mapping[str, Any], state: dict[str, Tensor]) -> None:
    """Gives tied names that the file has once their tensor, as safetensors writes them."""
    groups: dict[int, list[str]] = {}
    for name, tensor in wanted.items():
        groups.setdefault(id(tensor), []).append(name)
    for names in groups.values():
        present = next((name for name in names if name in state), None)
        if present is not None:
            for name in names:
                state.setdefault(name, state[present])


def _check(module: nn.Module, path: Path, wanted: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Refuses a state dict that is not the module's, with every name and shape."""
    missing = [name for name in wanted if name not in state and isinstance(wanted[name], Tensor)]
    unexpected = [name for name in state if name not in wanted]
    misshapen = [
        f"{name} {list(tensor.shape)} instead of {list(wanted[name].shape)}"
        for name, tensor in state.items()
        if name in wanted and tensor.shape != wanted[name].shape
    ]
    untied = _untied(wanted, state)
    listed = (
        ("missing", missing),
        ("unexpected", unexpected),
        ("misshapen", misshapen),
        ("tied but different", untied),
    )
    problems = [f"{what} {', '.join(names)}" for what, names in listed if names]
    if problems:
        raise CheckpointError(
            f"{path} is not a {type(module).__name__}: {'; '.join(problems)}; pass the class and the configuration "
            "that the weights were trained with"
        )


def _untied(wanted: Mapping[str, Any], state: Mapping[str, Tensor]) -> list[str]:
    first: dict[int, str] = {}
    different = []
    for name, tensor in wanted.items():
        other = first.setdefault(id(tensor), name)
        if other != name and other in state and name in state:
            a, b = state[other], state[name]
            if a.data_ptr() != b.data_ptr() and a.shape == b.shape and not torch.equal(a, b):
                different.append(f"{other} and {name}")
    return different


def _assign(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Puts the tensors themselves in the place of the module's, ties kept."""
    made: dict[int, nn.Parameter] = {}
    for prefix, part in module.named_modules():
        at = f"{prefix}." if prefix else ""
        for name, parameter in part._parameters.items():
            if parameter is not None and at + name in state:
                tensor = state[at + name]
                if tensor.dtype not in HALVES:  # 16 bits stay mapped and are widened where they are read
                    tensor = tensor.to(parameter.dtype)
                part._parameters[name] = made.setdefault(id(parameter), nn.Parameter(tensor, requires_grad=False))
        for name, buffer in part._buffers.items():
            if buffer is not None and at + name in state:
                part._buffers[name] = state[at + name].to(buffer.dtype)
