"""Packages that only some runs need, or one sentence on how to get them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from gpt_export.errors import ConfigError


def parquet(what: str) -> Any:
    """The module `pyarrow.parquet`.

    Raises:
        ConfigError: it is not installed; `what` says what needs it.
    """
    return _needed("pyarrow.parquet", what, "parquet")


def ray(what: str) -> Any:
    """The module `ray`.

    Raises:
        ConfigError: it is not installed; `what` says what needs it.
    """
    return _needed("ray", what, "ray")


def has_parquet() -> bool:
    """Whether pyarrow is installed."""
    try:
        import_module("pyarrow.parquet")
    except ImportError:
        return False
    return True


def _needed(module: str, what: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ConfigError(
            f"{what} needs {package}, which is not installed; install it: python -m pip install 'gpt-export[{extra}]'"
        ) from error
