"""What is measured: lengths and batches, cut to what a model's context holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpt_export.errors import ConfigError

PREFILL = (128, 512, 1024)
BATCHES = (1, 4, 16)
DECODE_CONTEXT, NEW_TOKENS = 128, 32
"""Tokens before the first timed step, and how many steps are timed."""
SHORT, LONG = 32, 1000
"""Tokens of context between which the growth of a step is measured."""
GROWTH_TOKENS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchConfig:
    """What a user may choose."""

    prefill: Sequence[int] = PREFILL
    batches: Sequence[int] = BATCHES
    repeats: int = 5
    threads: int | None = None
    """Threads within an operator; onnxruntime's choice if left out."""

    def __post_init__(self) -> None:
        for name, values in (("prefill", self.prefill), ("batch", self.batches)):
            if not values or min(values) < 1:
                listed = ",".join(map(str, values)) or "nothing"
                raise ConfigError(f"--{name} {listed} is out of range; pass whole numbers of at least 1, with commas")
        for name, value in (("repeats", self.repeats), ("threads", self.threads)):
            if value is not None and value < 1:
                raise ConfigError(f"--{name} {value} is out of range; pass a whole number of at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The measurements of one model; all lengths are in tokens and fit its context."""

    prefill: tuple[int, ...]
    batches: tuple[int, ...]
    decode_context: int
    new_tokens: int
    growth: tuple[int, ...]
    """The shorter and the longer context; one alone where the model's has no room for two."""
    growth_tokens: int
    repeats: int
    threads: int | None
    notes: tuple[str, ...]
    """A sentence on every length that was cut."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values of every field."""
        return {
            "prefill": list(self.prefill),
            "batches": list(self.batches),
            "decode_context": self.decode_context,
            "new_tokens": self.new_tokens,
            "growth": list(self.growth),
            "growth_tokens": self.growth_tokens,
            "repeats": self.repeats,
            "threads": self.threads,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Plan:
        """The plan that `to_dict` told, without its notes."""
        tuples = {name: tuple(values[name]) for name in ("prefill", "batches", "growth")}
        return cls(**values | tuples, notes=())


def plan(config: BenchConfig, context_length: int) -> Plan:
    """The measurements that `config` asks for, cut to a context of so many tokens.

    Raises:
        ConfigError: the context has no room for a token after another.
    """
    if context_length < 2:
        raise ConfigError(f"a context of {context_length} token has no room to decode in; there is nothing to measure")
    notes: list[str] = []

    def cut(what: str, asked: int, room: int) -> int:
        if asked > room:
            notes.append(f"{what} was cut from {asked} to {room} tokens: the context holds {context_length}")
        return min(asked, room)

    new_tokens = cut("decoding", NEW_TOKENS, max(1, context_length // 4))
    growth_tokens = min(GROWTH_TOKENS, new_tokens)
    short, long = SHORT, cut("the longer context of growth", LONG, context_length - growth_tokens)
    short = cut("the shorter context of growth", short, max(1, long // 4))
    return Plan(
        prefill=tuple(dict.fromkeys(cut(f"prefill {length}", length, context_length) for length in config.prefill)),
        batches=tuple(dict.fromkeys(config.batches)),
        decode_context=cut("the context of decoding", DECODE_CONTEXT, context_length - new_tokens),
        new_tokens=new_tokens,
        growth=tuple(dict.fromkeys((short, long))),
        growth_tokens=growth_tokens,
        repeats=config.repeats,
        threads=config.threads,
        notes=tuple(notes),
    )
