"""Graph passes: each takes a model and returns `(model, modified)`; together they are one ordered list.

The contract is onnx-ir's (`onnx_ir.passes`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import onnx_ir as ir
from onnx_ir.passes import PassBase
from onnx_ir.passes.common import (
    ClearMetadataAndDocStringPass,
    CommonSubexpressionEliminationPass,
    RemoveUnusedNodesPass,
)

from exporter.errors import GraphError
from exporter.passes.drop_unused_weights import DropUnusedWeights
from exporter.passes.gemm_for_tied_head import GemmForTiedHead
from exporter.passes.merge_tied_weights import MergeTiedWeights
from exporter.passes.static_reshapes import StaticReshapes
from exporter.passes.transpose_weights import TransposeWeights

logger = logging.getLogger(__name__)


def portable_passes(first_name: Mapping[str, str]) -> list[PassBase]:
    """The passes that keep to standard operators, in the order in which they run.

    Args:
        first_name: for each weight, the first name of its tensor; see `MergeTiedWeights`.
    """
    return [
        ClearMetadataAndDocStringPass(),
        StaticReshapes(),
        CommonSubexpressionEliminationPass(),
        MergeTiedWeights(first_name),
        GemmForTiedHead(),
        RemoveUnusedNodesPass(),
        TransposeWeights(),
        RemoveUnusedNodesPass(),
        DropUnusedWeights(),
    ]


def run_passes(model: ir.Model, passes: list[PassBase]) -> ir.Model:
    """`model` after all `passes`, in their order; the model given is left as it was.

    Raises:
        GraphError: a pass failed; the message names it.
    """
    before = len(model.graph)
    model = model.clone()
    for graph_pass in passes:
        try:
            model = graph_pass(model).model
        except Exception as error:  # whatever a pass trips over
            raise GraphError(f"the pass {type(graph_pass).__name__} failed: {error}; please report this") from error
    logger.info("passes took the graph from %d to %d nodes", before, len(model.graph))
    return model
