"""The checks, in the order in which they run. Each file registers the rules that its checks find broken."""

from __future__ import annotations

from exporter.lint.registry import Check
from exporter.lint.rules.dead_parts import dead_parts
from exporter.lint.rules.duplicate_weights import duplicate_weights
from exporter.lint.rules.external_data import external_data
from exporter.lint.rules.frozen_dims import frozen_dims
from exporter.lint.rules.genai import genai
from exporter.lint.rules.operators import operators
from exporter.lint.rules.optimum import optimum
from exporter.lint.rules.shapes import shapes
from exporter.lint.rules.square_constants import square_constants
from exporter.lint.rules.training import training
from exporter.lint.rules.transformers_js import transformers_js
from exporter.lint.rules.transposed_weights import transposed_weights
from exporter.lint.rules.triton import triton
from exporter.lint.rules.validity import validity
from exporter.lint.rules.values import values
from exporter.lint.rules.versions import versions

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
