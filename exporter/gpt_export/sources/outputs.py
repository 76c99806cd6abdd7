"""Where among a module's outputs the scores are, and the forward that returns them alone."""

from __future__ import annotations

import dataclasses
import itertools
import linecache
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gpt_export.runtime.signature import Head

WIDENED = ".float()"
NAMED = "logits"
"""What a dict or an object calls its scores."""


@dataclass(frozen=True, slots=True)
class Found:
    """One tensor of an output: the Python that reaches it from the output, and what its axes are."""

    access: str
    head: Head
    finish: str = ""
    """The Python that gives it the axes of its head, and float32."""


def find_scores(output: Any, batch: int, sequence: int, rows: int | None) -> Found | None:
    """The scores in what a module returned for ids (batch, sequence); None if nothing looks like scores.

    A tensor is taken as it is; of a dict or an object that has `logits`, those; of anything else with several tensors
    the first whose last axis is as long as the table of ids, else the first that has the right axes.

    Args:
        batch, sequence: sizes of the run; the more they differ from 1 and each other, the surer the answer.
        rows: of the table that the ids are looked up in, if there is one.
    """
    candidates = [
        found for access, tensor in _tensors(output) if (found := _read(access, tensor, batch, sequence, rows))
    ]
    whole = [found for found in candidates if found.head.width == rows]
    return next(iter(whole + candidates), None)


def _tensors(output: Any, access: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(output, Tensor):
        yield access, output
    elif isinstance(getattr(output, NAMED, None), Tensor):
        yield f"{access}.{NAMED}", getattr(output, NAMED)
    elif isinstance(output, Mapping):
        for key in [NAMED] if isinstance(output.get(NAMED), Tensor) else [key for key in output if type(key) is str]:
            yield from _tensors(output[key], f"{access}[{key!r}]")
    elif isinstance(output, tuple | list):
        for i, item in enumerate(output):
            yield from _tensors(item, f"{access}[{i}]")
    elif dataclasses.is_dataclass(output):
        for item in dataclasses.fields(output):
            yield from _tensors(getattr(output, item.name), f"{access}.{item.name}")


def _read(access: str, tensor: Tensor, batch: int, sequence: int, rows: int | None) -> Found | None:
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return None
    width = tensor.shape[-1] if tensor.ndim else 0
    of: Literal["tokens", "classes"] = "classes" if rows is not None and 2 * width <= rows else "tokens"
    shape = tuple(tensor.shape[:-1])
    finish = "" if tensor.dtype == torch.float32 else WIDENED
    if shape == (batch, sequence):
        return Found(access, Head(of=of, width=width), finish)
    if shape == (batch, 1):
        return Found(access, Head(of=of, positions="last", width=width), finish)
    if shape == (batch,) and of == "tokens":
        return Found(access, Head(of=of, positions="last", width=width), f".unsqueeze(1){finish}")
    if shape == (batch,):
        return Found(access, Head(of=of, positions="none", width=width), finish)
    if shape == (batch * sequence,):
        reshaped = f".reshape(input_ids.shape[0], input_ids.shape[1], {width})"
        return Found(access, Head(of=of, width=width), reshaped + finish)
    return None


_numbers = itertools.count()


def returning(module: nn.Module, found: Found, *, keywords: str = "") -> nn.Module:
    """`module` with the same parts under the same names, whose forward takes ids and returns what was found.

    It is a copy of the module object alone, of a class made below the module's own: parameters, buffers and children
    are the module's. It scripts where the module does.

    Args:
        keywords: further arguments of the module's forward, as Python.
    """
    kind = type(module)
    adapted = object.__new__(kind)
    adapted.__dict__ = dict(module.__dict__)
    own = adapted.__dict__.pop("forward", None)
    forward = _compiled(f"self.{_PLAIN}(input_ids{keywords}){found.access}{found.finish}")
    members: dict[str, Any] = {
        "forward": forward,
        _PLAIN: _renamed(kind.forward) if own is None else staticmethod(own),
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        "__annotations__": dict(getattr(kind, "__annotations__", {})),
    }
    adapted.__class__ = type(kind.__name__, (kind,), members)
    return adapted


_PLAIN = "forward_as_written"


def _renamed(forward: Callable[..., Any]) -> Callable[..., Any]:
    """`forward` under another name, by which TorchScript would otherwise compile it once more."""
    if not isinstance(forward, FunctionType):
        return forward
    copied = FunctionType(forward.__code__, forward.__globals__, _PLAIN, forward.__defaults__, forward.__closure__)
    copied.__kwdefaults__ = forward.__kwdefaults__
    copied.__annotations__ = forward.__annotations__
    copied.__dict__.update(forward.__dict__)
    return copied


def _compiled(expression: str) -> Callable[..., Tensor]:
    """A `forward` of ids that returns `expression`; TorchScript finds its source as it finds that of a file."""
    text = f"def forward(self, input_ids: Tensor) -> Tensor:\n    return {expression}\n"
    name = f"<gpt-export forward {next(_numbers)}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    scope: dict[str, Any] = {"Tensor": Tensor}
    exec(compile(text, name, "exec"), scope)
    forward: Callable[..., Tensor] = scope["forward"]
    return forward
