"""The checks, in the order in which they run. Each file registers the rules that its checks find broken."""

from __future__ import annotations

from collections.abc import Iterable

from gpt_export.errors import ConfigError
from gpt_export.linting.registry import Check, Rule, registered
from gpt_export.linting.rules.dead_parts import dead_parts
from gpt_export.linting.rules.duplicate_weights import duplicate_weights
from gpt_export.linting.rules.dynamic_quantization import dynamic_quantization
from gpt_export.linting.rules.external_data import external_data
from gpt_export.linting.rules.frozen_dims import frozen_dims
from gpt_export.linting.rules.genai import genai
from gpt_export.linting.rules.operators import operators
from gpt_export.linting.rules.optimum import optimum
from gpt_export.linting.rules.shapes import shapes
from gpt_export.linting.rules.square_constants import square_constants
from gpt_export.linting.rules.training import training
from gpt_export.linting.rules.transformers_js import transformers_js
from gpt_export.linting.rules.transposed_weights import transposed_weights
from gpt_export.linting.rules.triton import triton
from gpt_export.linting.rules.validity import validity
from gpt_export.linting.rules.values import values
from gpt_export.linting.rules.versions import versions

CHECKS: tuple[Check, ...] = (
    validity,
    frozen_dims,
    shapes,
    square_constants,
    duplicate_weights,
    training,
    dynamic_quantization,
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


def rules() -> tuple[Rule, ...]:
    """Every rule, by code."""
    return registered()


def check_codes(codes: Iterable[str]) -> None:
    """Refuses codes that no rule has.

    Raises:
        ConfigError: naming the first unknown code and all known ones.
    """
    known = [each.code for each in rules()]
    for code in codes:
        if code not in known:
            raise ConfigError(f"{code!r} is no code of a rule; known are {', '.join(known)}")
