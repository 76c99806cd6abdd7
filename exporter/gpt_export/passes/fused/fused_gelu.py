"""GELU written out, and the bias in front of it, become one operator."""

from __future__ import annotations

import math
from typing import Any

import onnx_ir as ir
from onnxscript.rewriter import RewritePass, pattern

from gpt_export.passes.building import CONTRIB, is_bias

_CUBIC = 0.044715
_SQRT_2_OVER_PI = math.sqrt(2 / math.pi)


def fuse_gelus() -> RewritePass:
    """The pass: tanh GELU to FastGelu, erf GELU to BiasGelu (Gelu where there is no bias).

    Formulas: Hendrycks & Gimpel, arXiv:1606.08415. Operators: onnxruntime's contrib operator documentation.
    """
    return RewritePass(
        [
            pattern.RewriteRule(_biased(_tanh_gelu), _fast_gelu, _is_bias, name="bias and tanh GELU"),
            pattern.RewriteRule(_tanh_gelu, _fast_gelu, name="tanh GELU"),
            pattern.RewriteRule(_biased(_erf_gelu), _bias_gelu, _is_bias, name="bias and erf GELU"),
            pattern.RewriteRule(_erf_gelu, _gelu, name="erf GELU"),
        ]
    )


def _biased(gelu: Any) -> Any:
    return lambda op, x, bias: gelu(op, op.Add(bias, x))


def _tanh_gelu(op: Any, x: Any) -> Any:
    cube = op.Mul(x, op.Mul(x, x))
    inner = op.Mul(_SQRT_2_OVER_PI, op.Add(x, op.Mul(_CUBIC, cube)))
    return op.Mul(0.5, op.Mul(x, op.Add(1.0, op.Tanh(inner))))


def _erf_gelu(op: Any, x: Any) -> Any:
    return op.Mul(op.Mul(x, op.Add(op.Erf(op.Div(x, math.sqrt(2))), 1.0)), 0.5)


def _is_bias(_context: Any, bias: ir.Value, **_: Any) -> bool:
    return is_bias(bias)


def _fast_gelu(op: Any, x: ir.Value, bias: ir.Value | None = None, **_: Any) -> Any:
    return op.FastGelu(x, *([] if bias is None else [bias]), _domain=CONTRIB)


def _bias_gelu(op: Any, x: ir.Value, bias: ir.Value, **_: Any) -> Any:
    return op.BiasGelu(x, bias, _domain=CONTRIB)


def _gelu(op: Any, x: ir.Value, **_: Any) -> Any:
    return op.Gelu(x, _domain=CONTRIB)
