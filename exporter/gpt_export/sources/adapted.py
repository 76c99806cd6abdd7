"""Any decoder module as one that maps ids to a tensor of scores, found out from a run."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from gpt_export_models.blank import without_weights
from torch import Tensor, nn

from gpt_export.errors import SourceError
from gpt_export.runtime.signature import Head
from gpt_export.sources.halves import Roundings, computing_in_float32
from gpt_export.sources.lookups import IdLookups
from gpt_export.sources.modes import as_it_came
from gpt_export.sources.outputs import NAMED, WIDENED, Found, find_scores, returning
from gpt_export.sources.places import blame
from gpt_export.sources.plain import halves, plain, widened

logger = logging.getLogger(__name__)

_ROUNDED = 0.01
"""Of the mean square of the scores, what rounding to 16 bits on the way may change; measured 1e-6 to 1e-4."""
_SHAPES = ((2, 3), (1, 3), (2, 2), (2, 1), (1, 1))
"""Batch and sequence of runs to learn from, the one that tells most first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapted:
    """A user's module in the form that all stages know."""

    reference: Callable[[], nn.Module]
    """The eager module: int64 ids (batch, sequence) to one float32 tensor with the axes of `head`."""
    skeleton: nn.Module
    """The same module on the meta device."""
    weights: Mapping[str, Tensor]
    """Parameters and buffers by the module's own names, in the types that they came in."""
    head: Head
    rows: int
    """How many ids there are: the rows of the table that they are looked up in."""
    rounds: bool
    """Whether the module's code rounds to 16 bits on its way, which the reference and the graph leave out."""
    notes: tuple[str, ...]


def adapt(module: Any, *, longest: int | None = None) -> Adapted:
    """`module`, in eval mode, as a map from ids to scores, its wrappings and other outputs looked through.

    Args:
        longest: the longest sequence to try it on; None for any.

    Raises:
        SourceError: it is not a module, or none that maps ids to scores.
    """
    if not isinstance(module, nn.Module):
        raise SourceError(f"{module!r} is a {type(module).__name__}, not a torch.nn.Module; pass a module")
    written = plain(module)
    narrow = halves(written)
    with Roundings() as roundings:
        found, rows = _looked_at(written, narrow, longest)
    if narrow:  # which rounds by its weights alone: its copy in float32 shows what its code does
        with Roundings() as roundings:
            _learn(widened(written), longest)
    scripted = isinstance(written, torch.jit.ScriptModule)
    rounds = None if scripted or roundings.dtype is None else str(roundings.dtype).removeprefix("torch.")
    if narrow and rounds is None:  # the copy in float32 returns float32 by itself
        found = replace(found, finish=found.finish.removesuffix(WIDENED))
    _refuse_doubles(written)

    def finished(base: nn.Module) -> nn.Module:
        if not found.access and not found.finish:
            return base
        if scripted:
            raise SourceError(
                f"{type(module).__name__} is scripted already and does not return float32 logits alone; pass the "
                "module that it was scripted from"
            )
        return returning(base, found)

    def in_float32(base: nn.Module) -> nn.Module:
        return computing_in_float32(base) if rounds else base

    wide = bool(narrow) or (rounds is not None and _buffers_widen(finished(written), longest, rows))
    skeleton = finished(widened(without_weights(written))) if wide else without_weights(finished(written))
    return Adapted(
        reference=lambda: in_float32(finished(widened(written) if wide else written)),
        skeleton=in_float32(skeleton),
        weights=_weights(written),
        head=found.head,
        rows=rows,
        rounds=rounds is not None,
        notes=_notes(found, rows, narrow, rounds),
    )


def _buffers_widen(module: nn.Module, longest: int | None, rows: int) -> bool:
    """Whether a module that rounds computes in float32 with float32 buffers, or else with those that it has.

    Buffers that it writes to on its way must be float32 for that; code that insists on their type forbids it.

    Raises:
        SourceError: by neither way is it the module.
    """
    length = min(8, longest or 8)
    ids = torch.arange(2 * length).reshape(2, length) % rows
    with as_it_came(module), torch.no_grad():
        own: Tensor = module(ids).double()
        for wide in (True, False):
            try:
                found: Tensor = computing_in_float32(widened(module) if wide else module)(ids).double()
            except Exception as error:  # the user's code
                logger.info("not in float32 with wide=%s: %s", wide, error)
                continue
            if (found - own).square().mean() <= _ROUNDED * own.square().mean():
                return wide
    raise SourceError(
        f"{type(module).__name__} rounds to 16 bits on its way and is another model without that; call .float() on it, "
        "and leave the casts in its code out"
    )


def _looked_at(module: nn.Module, narrow: str | None, longest: int | None) -> tuple[Found, int]:
    """What is in the module's output, and how many ids it takes; of a narrow module that does not run, of its copy."""
    try:
        return _learn(module, longest)
    except SourceError:
        if narrow is None:
            raise
        return _learn(widened(module), longest)


def _learn(module: nn.Module, longest: int | None) -> tuple[Found, int]:
    failure: Exception | None = None
    name = type(module).__name__
    for batch, sequence in _SHAPES:
        if longest is not None and sequence > longest:
            continue
        for first in (1, 0):  # ones and zeros look like no positions; with one row alone there is no id 1
            ids = (torch.arange(batch * sequence).reshape(batch, sequence) + first) % 2 * first
            try:
                with as_it_came(module), torch.no_grad(), IdLookups(ids) as lookups:
                    output = module(ids)
            except Exception as error:  # the user's code
                failure = failure or error
                continue
            rows = lookups.rows
            found = find_scores(output, batch, sequence, rows)
            if found is None:
                raise SourceError(
                    f"{name} returns {_described(output)} for ids of shape [{batch}, {sequence}], and no scores of "
                    "tokens or classes (batch, sequence, width); return them first, or as logits"
                )
            return found, found.head.width if rows is None else rows
    assert failure is not None
    raise SourceError(f"{name} fails on token ids: {blame(failure)}; {_needed(module)}") from failure


def _needed(module: nn.Module) -> str:
    """What to do about a forward that fails, from what it takes."""
    try:
        parameters = list(inspect.signature(module.forward).parameters.values())[1:]
    except (TypeError, ValueError):
        parameters = []
    needed = [
        p.name for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if needed:
        return f"give {', '.join(needed)} of its forward a default, so that it takes one int64 tensor (batch, sequence)"
    return "its forward must take one int64 tensor (batch, sequence)"


def _described(output: Any) -> str:
    if isinstance(output, Tensor):
        return f"{str(output.dtype).removeprefix('torch.')} {list(output.shape)}"
    if isinstance(output, tuple | list):
        return f"a {type(output).__name__} of {', '.join(map(_described, output)) or 'nothing'}"
    return f"a {type(output).__name__}"


def _refuse_doubles(module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if parameter.dtype == torch.float64:
            raise SourceError(
                f"{type(module).__name__} computes in float64 ({name}), and artifacts are float32; call .float() on it"
            )


def _notes(found: Found, rows: int, narrow: str | None, rounds: str | None) -> tuple[str, ...]:
    notes = []
    if rounds:
        notes.append(
            f"the module's code rounds to {rounds} on its way; it was exported without that, and judged against the "
            "same code in float32"
        )
    if narrow:
        notes.append(
            f"the {narrow} weights were widened to float32, and judged against the module's own code in float32"
        )
    if found.access not in ("", f".{NAMED}", f"[{NAMED!r}]"):
        notes.append(f"of what the module returns, {found.access.lstrip('.')} was exported")
    if found.head.of == "classes":
        what = "the last position" if found.head.positions == "last" else "every position"
        what = "the whole row" if found.head.positions == "none" else what
        notes.append(f"the module scores {found.head.width} classes for {what}; it has no next token")
    elif found.head.positions == "last":
        notes.append("the module gives logits of the last position alone; other positions were compared as prefixes")
    if found.head.of == "tokens" and found.head.width != rows:
        notes.append(f"the module takes {rows} ids and scores {found.head.width}")
    return tuple(notes)


def _weights(module: nn.Module) -> dict[str, Tensor]:
    """By name; complex numbers as pairs of real ones, which is how graphs have them."""
    named = {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
    return {name: torch.view_as_real(tensor) if tensor.is_complex() else tensor for name, tensor in named.items()}
