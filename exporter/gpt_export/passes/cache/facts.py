"""The fact that the interpreter carries about each value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import onnx_ir as ir

from gpt_export.passes.cache.axes import Axes
from gpt_export.passes.cache.refusal import CacheRefusedError

Depends = Literal["nothing", "positions", "data"]
"""On what a value depends: on weights alone, on the sizes of the input too, or on the ids."""


@dataclass(frozen=True, slots=True)
class Fact:
    """What is known of a value."""

    axes: Axes
    depends: Depends


@dataclass(frozen=True, slots=True)
class Written:
    """An argument of an operator that is not read from the graph but written: the sizes of `axes`, or `numbers`."""

    axes: Axes = ()
    numbers: tuple[int, ...] | None = None


@dataclass(slots=True)
class Step:
    """How a node acts on data: what comes out, and how it is to be written in the cached graph."""

    outputs: tuple[Axes, ...]
    alias: int | None = None
    """The input that the output equals, where the node does nothing."""
    written: dict[int, Written] = field(default_factory=dict)
    """By input index, arguments that are written anew."""
    whole: tuple[int, ...] = ()
    """Inputs whose rows are read at every position, past ones included: keys and values."""
    aligned: bool = False
    """Whether inputs broadcast against the output, so that those of positions align with its axes from the right."""
    full: bool = False
    """Whether inputs must have the output's axes at their whole length: they are joined, not broadcast."""
    taken_from: int | None = None
    """The input that entries are taken from by their places among the new rows, so that it must have these alone."""
    last: bool = False
    """Whether the node keeps the last position alone, which is left out: all new positions are kept."""
    unread: CacheRefusedError | None = None
    """Why what comes out must not be read, while its shape may be."""
    attributes: dict[str, ir.Attr] = field(default_factory=dict)
    """Attributes that differ from the node's own."""
