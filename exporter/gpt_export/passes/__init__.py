"""Graph passes: each takes a model and returns `(model, modified)`; together they are one ordered list.

The contract is onnx-ir's (`onnx_ir.passes`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import PassBase
from onnx_ir.passes.common import (
    ClearMetadataAndDocStringPass,
    CommonSubexpressionEliminationPass,
    IdentityEliminationPass,
    RemoveUnusedNodesPass,
)
from torch import Tensor

from gpt_export.errors import GraphError
from gpt_export.passes.fused.activations import FuseActivations
from gpt_export.passes.fused.drop_casts import DropCasts
from gpt_export.passes.fused.flat_tokens import FlattenTokens
from gpt_export.passes.fused.grouped_attention import FuseGroupedAttention
from gpt_export.passes.fused.last_logits import KeepLastLogits
from gpt_export.passes.fused.norms import FuseNorms
from gpt_export.passes.fused.pack_projections import PackProjections
from gpt_export.passes.fused.skip_norm import FuseSkipNorms
from gpt_export.passes.half_precision import HalvePrecision
from gpt_export.passes.portable.drop_unused_weights import DropUnusedWeights
from gpt_export.passes.portable.gemm_for_tied_head import GemmForTiedHead
from gpt_export.passes.portable.merge_tied_weights import MergeTiedWeights
from gpt_export.passes.portable.static_reshapes import StaticReshapes
from gpt_export.passes.portable.transpose_weights import TransposeWeights
from gpt_export.passes.quantized.cache_codes import QuantizeCache
from gpt_export.passes.quantized.quantize_products import QuantizeProducts
from gpt_export.weights.quantize.schemes import PrecisionPlan

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


def fused_passes(weights: Mapping[str, Tensor], context_length: int, *, attention: bool = True) -> list[PassBase]:
    """The passes behind the portable ones that use onnxruntime's own operators, in the order in which they run.

    Args:
        weights: the numbers of the weights by the names in their layouts; of large matrices none is read.
        context_length: the longest text.
        attention: whether attention is fused too; its operator has demands on how a graph is fed.
    """
    grouped = [FuseGroupedAttention(weights, context_length)] if attention else []
    return [
        IdentityEliminationPass(),
        DropCasts(),
        FuseNorms(weights),
        PackProjections(),
        *grouped,
        RemoveUnusedNodesPass(),
        FuseActivations(weights),
        RemoveUnusedNodesPass(),
        FuseSkipNorms(weights),
        RemoveUnusedNodesPass(),
        KeepLastLogits(),
        RemoveUnusedNodesPass(),
        DropUnusedWeights(),
    ]


def quantizing_passes(plan: PrecisionPlan, *, flat: bool = True) -> list[PassBase]:
    """The passes that quantise, in the order in which they run, behind the fused ones or the portable ones.

    Args:
        flat: whether activations may be made (tokens, width) throughout, which takes a graph whose layers are fused.
    """
    flattened: list[PassBase] = [FlattenTokens()] if flat and not plan.body_blocks else []
    return [*flattened, QuantizeProducts(plan), RemoveUnusedNodesPass(), DropUnusedWeights()]


def half_passes() -> list[PassBase]:
    """The passes behind the fused ones that take a graph to float16."""
    return [HalvePrecision(), RemoveUnusedNodesPass()]


def cache_passes(scales: Mapping[str, NDArray[np.float32]]) -> list[PassBase]:
    """The passes behind all others that give a graph a cache of 8 bits; see `QuantizeCache`."""
    return [QuantizeCache(scales)]


def run_passes(model: ir.Model, passes: list[PassBase]) -> ir.Model:
    """`model` after all `passes`, in their order; the model given is left as it was.

    Raises:
        GraphError: a pass refused the graph, or failed; then the message names it.
    """
    before = len(model.graph)
    meta = dict(model.meta)
    model = model.clone()
    model.meta.update(meta)  # a clone leaves them behind
    for graph_pass in passes:
        try:
            model = graph_pass(model).model
        except GraphError:
            raise
        except Exception as error:  # whatever a pass trips over
            raise GraphError(f"the pass {type(graph_pass).__name__} failed: {error}; please report this") from error
    logger.info("passes took the graph from %d to %d nodes", before, len(model.graph))
    return model
