"""What is exported: GPT definitions, their weights, and their tokens. Never imports `exporter`.

Names are loaded on first use, so that the configuration is at hand without waiting for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.config import GPT_CONFIG_124M, GPTConfig
    from models.dummy import DummyGPTModel, DummyLayerNorm, DummyTransformerBlock
    from models.errors import ConfigError, GptExportError, TextError

_HOME = {
    "GPT_CONFIG_124M": "models.config",
    "GPTConfig": "models.config",
    "DummyGPTModel": "models.dummy",
    "DummyLayerNorm": "models.dummy",
    "DummyTransformerBlock": "models.dummy",
    "ConfigError": "models.errors",
    "GptExportError": "models.errors",
    "TextError": "models.errors",
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
    raise AttributeError(f"module 'models' has no attribute {name!r}")
