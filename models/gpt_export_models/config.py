"""The sizes and choices that define a GPT, validated once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, get_args

from gpt_export_models.errors import ConfigError

Activation = Literal["gelu_tanh", "gelu_erf"]

GPT_CONFIG_124M: dict[str, Any] = {
    "vocab_size": 50257,
    "context_length": 1024,
    "emb_dim": 768,
    "n_heads": 12,
    "n_layers": 12,
    "drop_rate": 0.1,
    "qkv_bias": False,
}
"""The book's configuration of the 124M model ("LLMs from scratch", chapter 4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GPTConfig:
    """A validated, frozen GPT configuration. The first seven fields are the book's and must be given.

    Raises:
        ConfigError: a field has the wrong type or range, or `emb_dim` is no multiple of `n_heads`.
    """

    vocab_size: int
    context_length: int
    emb_dim: int
    n_heads: int
    n_layers: int
    drop_rate: float
    qkv_bias: bool
    hidden_dim: int | None = None
    """Width of the feed-forward layer; None is the usual four times `emb_dim`."""
    activation: Activation = "gelu_tanh"
    """`gelu_tanh` as in GPT-2 and the book, `gelu_erf` as in nanoGPT (Hendrycks & Gimpel, arXiv:1606.08415)."""
    norm_eps: float = 1e-5
    linear_bias: bool = True
    """Whether the attention's output projection and the feed-forward layers have biases."""
    norm_bias: bool = True
    """Whether layer norms have a shift."""
    tied_head: bool = False
    """Whether `out_head` is `tok_emb` (Press & Wolf, arXiv:1608.05859)."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "context_length", "emb_dim", "n_heads", "n_layers"):
            _check_positive_int(name, getattr(self, name))
        if self.hidden_dim is not None:
            _check_positive_int("hidden_dim", self.hidden_dim)
        for name in ("qkv_bias", "linear_bias", "norm_bias", "tied_head"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} must be true or false, not {getattr(self, name)!r}")
        if not _is_number(self.drop_rate) or not 0 <= self.drop_rate < 1:
            raise ConfigError(f"drop_rate must be a number from 0 to below 1, not {self.drop_rate!r}")
        if not _is_number(self.norm_eps) or not 0 < self.norm_eps < 1:
            raise ConfigError(f"norm_eps must be a number between 0 and 1, not {self.norm_eps!r}")
        if self.activation not in get_args(Activation):
            raise ConfigError(f"activation {self.activation!r} is not known; choose one of {get_args(Activation)}")
        if self.emb_dim % self.n_heads:
            raise ConfigError(
                f"emb_dim {self.emb_dim} does not divide into {self.n_heads} heads; choose an n_heads that divides it"
            )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.emb_dim // self.n_heads

    @property
    def feed_forward_dim(self) -> int:
        """Width of the feed-forward layer."""
        return 4 * self.emb_dim if self.hidden_dim is None else self.hidden_dim

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GPTConfig:
        """The configuration that a dict like `GPT_CONFIG_124M` describes.

        Raises:
            ConfigError: a key is missing or unknown, or a value is invalid.
        """
        known = {field.name for field in fields(cls)}
        required = {field.name for field in fields(cls) if field.default is MISSING}
        if missing := sorted(required - values.keys()):
            raise ConfigError(f"the configuration lacks {', '.join(missing)}; it needs {', '.join(sorted(required))}")
        if unknown := sorted(str(key) for key in values.keys() - known):
            raise ConfigError(
                f"the configuration has unknown keys {', '.join(unknown)}; known are {', '.join(sorted(known))}"
            )
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The book's seven keys, and of the other fields those that differ from their default."""
        items = ((field, getattr(self, field.name)) for field in fields(self))
        return {field.name: value for field, value in items if field.default is MISSING or value != field.default}


def as_config(cfg: GPTConfig | Mapping[str, Any]) -> GPTConfig:
    """`cfg` itself, or the configuration that the dict describes."""
    return cfg if isinstance(cfg, GPTConfig) else GPTConfig.from_dict(cfg)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_positive_int(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name} must be a whole number of at least 1, not {value!r}")
