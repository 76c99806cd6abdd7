"""What is exported: GPT definitions, their weights, and their tokens. Never imports `gpt_export`.

Names are loaded on first use, so that the configuration is at hand without waiting for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpt_export_models.config import GPT_CONFIG_124M, GPTConfig
    from gpt_export_models.dummy import DummyGPTModel, DummyLayerNorm, DummyTransformerBlock
    from gpt_export_models.errors import ConfigError, GptExportError, TextError

_HOME = {
    "GPT_CONFIG_124M": "gpt_export_models.config",
    "GPTConfig": "gpt_export_models.config",
    "DummyGPTModel": "gpt_export_models.dummy",
    "DummyLayerNorm": "gpt_export_models.dummy",
    "DummyTransformerBlock": "gpt_export_models.dummy",
    "ConfigError": "gpt_export_models.errors",
    "GptExportError": "gpt_export_models.errors",
    "TextError": "gpt_export_models.errors",
}

__all__ = [
    "GPT_CONFIG_124M",
    "ConfigError",
    "DummyGPTModel",
    "DummyLayerNorm",
    "DummyTransformerBlock",
    "GPTConfig",
    "GptExportError",
    "TextError",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
