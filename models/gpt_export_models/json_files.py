"""JSON objects out of files that may hold anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gpt_export_models.errors import CheckpointError
from gpt_export_models.problems import some

LARGEST_BYTES = 64 * 2**20
"""Far above any configuration or index; what is larger is something else."""


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in the file.

    Raises:
        CheckpointError: the file cannot be read, or holds no JSON object.
    """
    text = read_json_text(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({some([error])}); correct it or download it again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a JSON {type(value).__name__}, not an object; pass the right file")
    return value


def read_json_text(path: Path) -> str:
    """The text of a file that should be JSON and is not absurdly large.

    Raises:
        CheckpointError: the file cannot be read, or is no text.
    """
    try:
        if (size_bytes := path.stat().st_size) > LARGEST_BYTES:
            raise CheckpointError(f"{path} has {size_bytes} bytes, too many for a JSON file; pass the right file")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}; check the path") from error
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not valid JSON ({some([error])}); correct it or download it again") from error
