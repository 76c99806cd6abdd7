"""Which precision quantises what, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Precision = Literal["fp32", "fp16", "int8", "int4"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

_BLOCKS = (128, 64, 32, 16)


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a matrix is quantised: symmetrically, `bits` a weight, one float32 scale for each `block` of a row."""

    bits: int
    block: int | None
    """Neighbours along the input axis that share a scale; None for a whole row, whose activations are then quantised
    as well, by token, so that the product is one of integers."""

    @property
    def lowest(self) -> int:
        """The smallest code; -128 is left out so that codes of 8 bits are symmetric."""
        return -(1 << (self.bits - 1)) + (1 if self.bits == 8 else 0)

    @property
    def highest(self) -> int:
        """The largest code."""
        return (1 << (self.bits - 1)) - 1


@dataclass(frozen=True, slots=True)
class PrecisionPlan:
    """The schemes of a precision: of the layers inside the blocks, and of the head with the token embedding."""

    body_bits: int
    body_blocks: bool
    head_bits: int

    def body(self, width: int) -> Scheme:
        """The scheme of a layer with `width` inputs."""
        return Scheme(self.body_bits, block_for(width) if self.body_blocks else None)

    def head(self, width: int) -> Scheme:
        """The scheme of the head, which shares its bytes with the embedding where they are tied."""
        return Scheme(self.head_bits, block_for(width))


PLANS: Mapping[Precision, PrecisionPlan] = {
    "int8": PrecisionPlan(body_bits=8, body_blocks=False, head_bits=8),
    "int4": PrecisionPlan(body_bits=4, body_blocks=True, head_bits=4),
}
"""Set by measurement: docs/variants.md and docs/performance.md."""


def block_for(width: int) -> int:
    """The largest block that divides `width`; the smallest one, with the last block filled up, where none does."""
    return next((block for block in _BLOCKS if width % block == 0), _BLOCKS[-1])
