"""Removes weights that nothing reads."""

from __future__ import annotations

import logging

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from gpt_export.weights.layout import layout_of

logger = logging.getLogger(__name__)


class DropUnusedWeights(InPlacePass):
    """Drops the weight inputs without a consumer, so that their bytes are not written."""

    def call(self, model: ir.Model) -> PassResult:
        graph = model.graph
        unused = [
            value for value in graph.inputs if layout_of(value) and not value.uses() and not value.is_graph_output()
        ]
        for value in unused:
            graph.inputs.remove(value)
        if unused:
            logger.info("dropped %d unused weights", len(unused))
        return PassResult(model, modified=bool(unused))
