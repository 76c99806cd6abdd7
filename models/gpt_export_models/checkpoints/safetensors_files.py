"""Safetensors files as mapped tensors."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from gpt_export_models.errors import CheckpointError
from gpt_export_models.problems import some
from gpt_export_models.regular_files import check_file


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of the file by name, as views into the mapped file.

    The library checks the header's length and that the offsets lie inside the file without gaps or overlaps
    (https://huggingface.co/docs/safetensors#format).

    Raises:
        CheckpointError: the file is damaged, or holds a dtype that torch does not have.
    """
    try:
        check_file(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}; check the path") from error
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} is not a complete safetensors file ({some([error])}); download or save it again"
        ) from error
