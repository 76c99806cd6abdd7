"""How a stored weight follows from its source: declared on the graph's values, written by `weights`, checked later."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir

_KEY = "gpt_export_layout"


@dataclass(frozen=True, slots=True)
class Layout:
    """The parameter or buffer that a weight is, and whether its two axes are swapped."""

    source: str
    transposed: bool = False

    def swapped(self) -> Layout:
        """The layout with the axes swapped once more."""
        return replace(self, transposed=not self.transposed)

    def to_dict(self) -> dict[str, Any]:
        """JSON values: `source`, `transposed`."""
        return {"source": self.source, "transposed": self.transposed}


def set_layout(value: ir.Value, layout: Layout) -> None:
    """Marks `value` as a weight that is stored in `layout`."""
    value.meta[_KEY] = layout


def layout_of(value: ir.Value) -> Layout | None:
    """The layout of a weight, None for any other value."""
    layout = value.meta.get(_KEY)
    return layout if isinstance(layout, Layout) else None
