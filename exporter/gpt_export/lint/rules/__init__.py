"""The checks, in the order in which they run. Each file registers the rules that its checks find broken."""

from __future__ import annotations

from gpt_export.lint.registry import Check
from gpt_export.lint.rules.dead_parts import dead_parts
from gpt_export.lint.rules.duplicate_weights import duplicate_weights
from gpt_export.lint.rules.external_data import external_data
from gpt_export.lint.rules.frozen_dims import frozen_dims
from gpt_export.lint.rules.genai import genai
from gpt_export.lint.rules.operators import operators
from gpt_export.lint.rules.optimum import optimum
from gpt_export.lint.rules.shapes import shapes
from gpt_export.lint.rules.square_constants import square_constants
from gpt_export.lint.rules.training import training
from gpt_export.lint.rules.transformers_js import transformers_js
from gpt_export.lint.rules.transposed_weights import transposed_weights
from gpt_export.lint.rules.triton import triton
from gpt_export.lint.rules.validity import validity
from gpt_export.lint.rules.values import values
from gpt_export.lint.rules.versions import versions

CHECKS: tuple[Check, ...] = (
    validity,
    frozen_dims,
    shapes,
    square_constants,
    duplicate_weights,
    training,
    external_data,
    versions,
    operators,
    optimum,
    transformers_js,
    genai,
    triton,
    dead_parts,
    values,
    transposed_weights,
)
