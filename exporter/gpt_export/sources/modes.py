"""A module for a while in eval mode, or run, and then as it came."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

_OF_TORCH = frozenset(vars(nn.Module()))
"""What every module has: its parts, its weights and its hooks."""


@contextlib.contextmanager
def evaluating(module: Any) -> Iterator[None]:
    """Puts `module` in eval mode inside, and each of its parts back as it came; ignores what is no module."""
    modes = {part: part.training for part in module.modules()} if isinstance(module, nn.Module) else {}
    with as_it_came(module):
        try:
            if modes:
                module.eval()
            yield
        finally:
            for part, mode in modes.items():
                part.training = mode


@contextlib.contextmanager
def as_it_came(module: Any) -> Iterator[None]:
    """Takes back what the code of `module` notes in itself while it is run inside, such as the last length it saw.

    That is attributes and buffers that are set, and lists and dicts that are changed; what is written into a tensor
    stays. A lazy part, which its first run makes whole, is left as it is then.
    """
    parts = list(module.modules()) if isinstance(module, nn.Module) else []
    noted = [
        (part, _notes_of(part)) for part in parts if not isinstance(part, (torch.jit.ScriptModule, LazyModuleMixin))
    ]
    try:
        yield
    finally:
        for part, (attributes, buffers) in noted:
            _put_back(part, attributes, buffers)


def _notes_of(part: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `part` has of its own, by name, and its buffers; of a list or a dict, itself and a copy."""
    own = {name: value for name, value in vars(part).items() if name not in _OF_TORCH}
    held = {name: (value, copy.copy(value) if type(value) in (dict, list) else None) for name, value in own.items()}
    return held, dict(part._buffers)


def _put_back(part: nn.Module, attributes: dict[str, Any], buffers: dict[str, Any]) -> None:
    for name in [name for name in vars(part) if name not in _OF_TORCH and name not in attributes]:
        del vars(part)[name]
    for name, (value, content) in attributes.items():
        vars(part)[name] = value
        if content is not None:
            value.clear()
            value.extend(content) if isinstance(value, list) else value.update(content)
    part._buffers.clear()
    part._buffers.update(buffers)
