"""Weights that are one tensor in the source become one in the graph."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from gpt_export.weights.layout import layout_of


class MergeTiedWeights(InPlacePass):
    """Lets all readers of a tied weight read the first of its names; the others are left without readers.

    Args:
        first_name: for each weight, the first name that its tensor has in the source.
    """

    def __init__(self, first_name: Mapping[str, str]) -> None:
        super().__init__()
        self._first_name = first_name

    def call(self, model: ir.Model) -> PassResult:
        modified = False
        by_source = {layout.sources[0]: value for value in model.graph.inputs if (layout := layout_of(value))}
        for source, value in by_source.items():
            first = by_source.get(self._first_name.get(source, source), value)
            if first is not value and value.uses():
                value.replace_all_uses_with(first)
                modified = True
        return PassResult(model, modified=modified)
