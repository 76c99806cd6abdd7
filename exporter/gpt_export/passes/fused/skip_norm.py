"""A residual sum and the norm behind it become one operator, the bias in front of it included."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
from onnxscript.rewriter import RewritePass, pattern

from gpt_export.passes.building import CONTRIB, is_bias


def fuse_skip_norms() -> RewritePass:
    """The pass: `LayerNormalization(x + (y + bias))` to SkipLayerNormalization, which hands out the sum as well.

    Operator: onnxruntime's contrib operator documentation.
    """
    return RewritePass(
        [
            pattern.RewriteRule(_biased_norm, _fused, _is_bias, name="sum of a biased product, and norm"),
            pattern.RewriteRule(_norm, _fused, name="sum and norm"),
        ]
    )


def _biased_norm(op: Any, residual: Any, y: Any, bias: Any, scale: Any) -> Any:
    total = op.Add(residual, op.Add(bias, y))
    return op.LayerNormalization(total, scale, _allow_other_inputs=True, _outputs=["norm"]), total


def _norm(op: Any, residual: Any, y: Any, scale: Any) -> Any:
    total = op.Add(residual, y)
    return op.LayerNormalization(total, scale, _allow_other_inputs=True, _outputs=["norm"]), total


def _is_bias(_context: Any, bias: ir.Value, **_: Any) -> bool:
    return is_bias(bias)


def _fused(
    op: Any, residual: ir.Value, y: ir.Value, scale: ir.Value, norm: ir.Value, bias: ir.Value | None = None, **_: Any
) -> Any:
    node = norm.producer()
    assert node is not None
    shift = node.inputs[2] if len(node.inputs) > 2 else None
    fused, _mean, _inverse, total = op.SkipLayerNormalization(
        y, residual, scale, shift, bias,
        epsilon=node.attributes.get_float("epsilon", 1e-5), _outputs=4, _domain=CONTRIB,
    )  # fmt: skip
    return fused, total
