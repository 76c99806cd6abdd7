"""The opsets that can be exported. Light, so that `--help` can name them."""

from __future__ import annotations

from gpt_export.errors import ConfigError

OPSETS = (17, 18, 19, 20)
"""17 has LayerNormalization; 20 is the last that torch's TorchScript exporter is specified for."""
DEFAULT_OPSET = 18


def check_opset(opset: int) -> int:
    """`opset`, if it can be exported.

    Raises:
        ConfigError: it is not one of `OPSETS`.
    """
    if opset not in OPSETS:
        raise ConfigError(f"opset {opset} is not supported; choose one of {', '.join(map(str, OPSETS))}")
    return opset
