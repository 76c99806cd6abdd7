"""Packages that only some runs need, or one sentence on how to get them."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
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
    return _is_there("pyarrow")


def needs(package: str, what: str, extra: str) -> None:
    """Refuses what needs a package that is not installed, without importing it.

    Raises:
        ConfigError: it is not installed.
    """
    if not _is_there(package):
        raise ConfigError(_sentence(what, package, extra))


def _needed(module: str, what: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(_sentence(what, module.partition(".")[0], extra)) from error


def _is_there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ImportError:
        return False


def _sentence(what: str, package: str, extra: str) -> str:
    return f"{what} needs {package}, which is not installed; install it: python -m pip install 'gpt-export[{extra}]'"
