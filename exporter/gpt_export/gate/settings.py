"""What is compared, and what is allowed: the part of an export's settings that the gate needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from gpt_export.errors import ConfigError
from gpt_export.gate.limits import LIMITS, Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSettings:
    """The cases that are run through both models, and the limits that hold for each precision.

    Raises:
        ConfigError: a value is out of range.
    """

    texts: tuple[str, ...] | None = None
    """Texts of the text case; None is the book's two prompts where the model has a tokenizer."""
    corpus: str | None = None
    """A text to compare on in windows of the context."""
    cases: tuple[str, ...] = ("default",)
    """`("default",)` of some hundred positions and the end of the context, `("full",)`, or the names of cases."""
    seed: int = 123
    """Seeds the ids of the shape grid."""
    limits: Limits | None = None
    """What is allowed of float32; None is its row of `LIMITS`."""
    variant_kl: float | None = None
    """A bound on the mean KL of every other precision, where it is tighter than its row of `LIMITS`."""
    variant_top1: float | None = None
    """A share of agreeing likeliest tokens for every other precision, where it is more than its row demands."""

    def __post_init__(self) -> None:
        if not self.cases:
            raise ConfigError("no case was chosen; choose default, full, or names of cases")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed {self.seed} is out of range; choose one from 0 to 2**63 - 1")
        if self.texts is not None and not self.texts:
            raise ConfigError("texts are empty; pass at least one, or None for the default ones")

    @property
    def allowed(self) -> Limits:
        """The limits that hold for float32."""
        return self.limits or LIMITS["fp32"]

    def allowed_for(self, variant: str) -> Limits:
        """The limits that hold for a variant: its row of `LIMITS`, or what was given where that is tighter."""
        if variant == "fp32":
            return self.allowed
        row = LIMITS[variant]
        kl = min(bound for bound in (row.kl_mean, self.variant_kl) if bound is not None)
        return replace(row, kl_mean=kl, top1=max(row.top1, self.variant_top1 or 0.0))

    @property
    def full(self) -> bool:
        """Whether every shape is run whole."""
        return "full" in self.cases

    def completed(self, recorded: Mapping[str, Any]) -> GateSettings:
        """These settings with what they leave open, and the seed, as an export recorded them in its manifest."""
        texts = None if recorded["texts"] is None else tuple(recorded["texts"])
        return replace(
            self,
            texts=self.texts or texts,
            limits=self.limits or Limits(**recorded["limits"]),
            seed=int(recorded["seed"]),
        )
