"""JSON objects out of files that may hold anything."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from gpt_export_models.errors import CheckpointError
from gpt_export_models.problems import some
from gpt_export_models.regular_files import JSON_BYTES, OBJECT_BYTES, read_text

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in the file.

    Raises:
        CheckpointError: the file cannot be read, or holds no JSON object.
    """
    text = read_json_text(path, largest=OBJECT_BYTES)
    try:
        value = parse_json(text)
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON ({some([error])}); correct it or download it again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a JSON {type(value).__name__}, not an object; pass the right file")
    return value


def read_json_text(path: Path, *, largest: int = JSON_BYTES) -> str:
    """The text of a file that should be JSON and is not absurdly large.

    Raises:
        CheckpointError: the file cannot be read, or is no text.
    """
    try:
        return read_text(path, largest=largest)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}; check the path") from error
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not valid JSON ({some([error])}); correct it or download it again") from error


def parse_json(text: str, *, finite: bool = False) -> Any:
    """The value that `text` is, whose strings are Unicode: halves of surrogate pairs fit no file and no library.

    Args:
        finite: refuse numbers beyond every float, and the NaN and Infinity that Python writes, as JSON itself does;
            configurations of Hugging Face's have them.

    Raises:
        ValueError: it is no JSON, nested too deeply, or holds what is refused.
    """
    try:
        value = (_STRICT.decode if finite else json.loads)(text)
    except RecursionError as error:
        raise ValueError(str(error)) from error
    if _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"it holds half of a surrogate pair, {error.object[error.start]!a}") from error
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{some([digits])} is beyond every float")
    return number


_STRICT = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
