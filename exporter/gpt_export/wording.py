"""Failures in the words of whoever called: what to do next is an option on the command line, an argument in Python."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

from gpt_export_models.errors import GptExportError

P = ParamSpec("P")
R = TypeVar("R")

ARGUMENTS: Mapping[str, str] = {
    "--force": "force=True",
    "--no-cache": "cache=False",
    "--single-file": "single_file",
    "--config": "config_file",
    "--precision": "precisions",
    "--text-file": "corpus",
    "--text": "texts",
    "--ignore": "ignore",
    "--target-ort": "target_ort",
    "--consumer": "consumers",
    "--role": "roles",
}
"""What an option is called as an argument, where that is more than its name without the hyphens."""
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*(?: (?=(?:fp|int)\d|portable|script|export\b))?")


def python_words(message: str) -> str:
    """`message` with every option of the command line named as the argument that it is in Python.

    Commands that are quoted as a whole, such as `gpt-export validate ARTIFACT --against ...`, stay commands.
    """
    if "gpt-export " in message or "npm " in message:
        return message
    return _OPTION.sub(lambda found: _argument(found[0]), message)


def in_python_words(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, whose failures speak of arguments."""

    @functools.wraps(function)
    def speaking(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except GptExportError as error:
            if error.args and isinstance(error.args[0], str):
                error.args = (python_words(error.args[0]), *error.args[1:])
            raise

    return speaking


def _argument(option: str) -> str:
    name = option.strip()
    word = ARGUMENTS.get(name, name[2:].replace("-", "_"))
    return f"{word}=" if option.endswith(" ") else word
