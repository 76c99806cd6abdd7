"""Which of gpt-export's own requirements are not installed. Light: it is asked where they are not."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires, version

_NAME = re.compile(r"[\w.-]+")


def missing_requirements() -> tuple[str, ...]:
    """What gpt-export requires and this environment does not have, as pip takes it: `("click>=8.1", ...)`.

    Extras are left out, and all of them where gpt-export was not installed but put on the path.
    """
    try:
        stated = requires("gpt-export") or []
    except PackageNotFoundError:
        return ()
    return tuple(line for line in stated if ";" not in line and not _installed(_name(line)))


def explain_missing(error: ModuleNotFoundError, missing: Iterable[str]) -> str | None:
    """In one sentence what to install, if `error` is about one of the `missing` requirements; otherwise None."""
    lines = tuple(missing)
    absent = (error.name or "").partition(".")[0]
    if _module(absent) not in {_module(_name(line)) for line in lines}:
        return None
    names = ", ".join(_name(line) for line in lines)
    return (
        f"this needs {absent}, and of what gpt-export requires {names} cannot be found here; "
        f"gpt_export.runtime does without, and for the rest install: python -m pip install {shlex.join(lines)}"
    )


def _name(line: str) -> str:
    found = _NAME.match(line)
    return found[0] if found else line


def _module(name: str) -> str:
    return name.lower().replace("-", "_")


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
