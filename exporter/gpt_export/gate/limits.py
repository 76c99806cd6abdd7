"""What a comparison allows, by precision: one table, each figure with the measurement that it was set from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from gpt_export.errors import ConfigError

NOISE_FLOOR = 2.0**-20
"""The least relative noise assumed (8 units in the last place): short sums can come out exact by luck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What keeps a case within bounds. None sets no bound."""

    noise_factor: float | None
    """Largest difference, in units of the error that eager float32 itself has (`gpt_export.gate.noise`)."""
    kl_mean: float | None
    """Mean KL divergence of the next-token distribution from the reference's, in nats."""
    top1: float
    """Least share of positions whose likeliest token is the reference's, near-ties counted as the same."""
    atol: float | None = None
    """With `rtol` in place of `noise_factor`: a difference may be `atol + rtol * abs(reference)`."""
    rtol: float | None = None
    tie_nats: float | None = None
    """Where no difference is bounded: how much likelier the reference's first token may be than the candidate's for
    the two to count as a tie."""
    perplexity_change: float | None = None
    """Largest change of the perplexity on a text, as a share; of texts that the model knows."""

    @property
    def bounds_logits(self) -> bool:
        """Whether the difference of each logit is bounded."""
        return self.noise_factor is not None or self.atol is not None or self.rtol is not None

    def overridden(
        self,
        *,
        atol: float | None = None,
        rtol: float | None = None,
        kl: float | None = None,
        top1: float | None = None,
    ) -> Limits:
        """These limits with those given in their place; `atol` or `rtol` replaces the multiple of the noise.

        Raises:
            ConfigError: a value is negative, or `top1` is above 1.
        """
        for name, value in (("atol", atol), ("rtol", rtol), ("kl", kl), ("top1", top1)):
            if value is not None and not 0 <= value < float("inf"):
                raise ConfigError(f"{name} {value} is out of range; pass 0 or a positive number")
        if top1 is not None and top1 > 1:
            raise ConfigError(f"top1 {top1} is out of range; it is a share, pass at most 1")
        limits = self
        if atol is not None or rtol is not None:
            limits = replace(limits, noise_factor=None, atol=atol or 0.0, rtol=rtol or 0.0)
        if kl is not None:
            limits = replace(limits, kl_mean=kl)
        if top1 is not None:
            limits = replace(limits, top1=top1)
        return limits

    def to_dict(self) -> dict[str, Any]:
        """JSON values of every field."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


PERPLEXITY_TOKENS = 256
"""Of fewer tokens the perplexity says more about the text than about the model."""
UNKNOWN_TEXT = 10_000
"""From this perplexity on a text is nothing that the model has learnt, and its perplexity says nothing of it."""

LIMITS: Mapping[str, Limits] = {
    # noise_factor: a small multiple of the largest ratio measured, see benches/results/noise.json and docs/parity.md.
    # kl_mean: a difference within the limit bounds the KL already (it is at most half the square of the largest one).
    "fp32": Limits(noise_factor=8.0, kl_mean=None, top1=1.0),
    # The others: two to four times what trained weights measured, see benches/results/quality.json.
    "fp16": Limits(noise_factor=None, kl_mean=1e-5, top1=1.0, tie_nats=0.05, perplexity_change=0.001),
    "int8": Limits(noise_factor=None, kl_mean=0.002, top1=0.98, tie_nats=0.2, perplexity_change=0.005),
    "int4": Limits(noise_factor=None, kl_mean=0.05, top1=0.9, tie_nats=0.5, perplexity_change=0.03),
    # With a cache of 8 bits: the same as int8, and half as much again or a little more where weights are rounded too.
    "fp32-kv8": Limits(noise_factor=None, kl_mean=0.002, top1=0.98, tie_nats=0.2, perplexity_change=0.005),
    "int8-kv8": Limits(noise_factor=None, kl_mean=0.003, top1=0.98, tie_nats=0.25, perplexity_change=0.0075),
    "int4-kv8": Limits(noise_factor=None, kl_mean=0.051, top1=0.9, tie_nats=0.5, perplexity_change=0.0325),
}
