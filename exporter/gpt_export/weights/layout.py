"""How a stored weight follows from its source: declared on the graph's values, written by `weights`, checked later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import onnx_ir as ir

_KEY = "gpt_export_layout"


Part = Literal["codes", "scales"]


@dataclass(frozen=True, slots=True)
class Coded:
    """One of the two tensors that a quantised matrix is stored as, and how it is quantised."""

    part: Part
    bits: int
    block: int | None
    """How many neighbours along the input axis share a scale; None for a whole row of the matrix."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values of every field."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Layout:
    """The parameters or buffers that a weight is, joined along their first axis, and whether its axes are swapped.

    Of a weight that is stored as codes it is the quantised matrix, (outputs, inputs), that has them swapped.
    """

    sources: tuple[str, ...]
    transposed: bool = False
    coded: Coded | None = None
    """Set where the file holds codes or scales in place of the numbers."""

    @classmethod
    def of(cls, source: str) -> Layout:
        """The layout of a weight that is one source, as it is there."""
        return cls((source,))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Layout:
        """The layout that `to_dict` gave."""
        coded = values.get("coded")
        return cls(tuple(values["sources"]), bool(values["transposed"]), Coded(**coded) if coded else None)

    @property
    def label(self) -> str:
        """The sources in words."""
        return " + ".join(self.sources)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the tensors that are written: the sources, or what is made of them."""
        if self.coded is None:
            return self.sources
        block = self.coded.block or "row"
        return (f"{'+'.join(self.sources)}#{self.coded.bits}/{block}.{self.coded.part}",)

    def swapped(self) -> Layout:
        """The layout with the axes swapped once more."""
        return replace(self, transposed=not self.transposed)

    def to_dict(self) -> dict[str, Any]:
        """JSON values: `sources`, `transposed`, and of a quantised matrix `coded`."""
        values = {"sources": list(self.sources), "transposed": self.transposed}
        return values | ({"coded": self.coded.to_dict()} if self.coded else {})


def set_layout(value: ir.Value, layout: Layout) -> None:
    """Marks `value` as a weight that is stored in `layout`."""
    value.meta[_KEY] = layout


def layout_of(value: ir.Value) -> Layout | None:
    """The layout of a weight, None for any other value."""
    layout = value.meta.get(_KEY)
    return layout if isinstance(layout, Layout) else None
