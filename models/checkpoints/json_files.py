"""JSON objects out of files that may hold anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from models.checkpoints.problems import some
from models.errors import CheckpointError

LARGEST_BYTES = 64 * 2**20
"""Far above any configuration or index; what is larger is something else."""


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in the file.

    Raises:
        CheckpointError: the file cannot be read, or holds no JSON object.
    """
    try:
        if (size_bytes := path.stat().st_size) > LARGEST_BYTES:
            raise CheckpointError(f"{path} has {size_bytes} bytes, too many for a JSON file; pass the right file")
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}; check the path") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({some([error])}); correct it or download it again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a JSON {type(value).__name__}, not an object; pass the right file")
    return value
