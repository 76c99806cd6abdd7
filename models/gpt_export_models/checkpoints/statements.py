"""What a checkpoint says of itself beside its tensors, and what its user has to say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gpt_export_models.checkpoints.opaque import attributes
from gpt_export_models.checkpoints.stored import Stored
from gpt_export_models.errors import CheckpointError, UnstatedError
from gpt_export_models.json_files import read_json_object

_DEEPEST = 2
LORA_ALPHA = "lora_alpha"
HEADS = ("n_head", "n_heads", "num_heads", "num_attention_heads")
"""What people call the head count."""


def settings_beside(stored: Stored) -> tuple[str, Mapping[str, Any]]:
    """What names the settings that a training loop saved around the weights, and those; the ones with a head count.

    Of a config.json beside the file, if the file itself has none; nothing if there is none either.
    """
    for where, found in _settings(stored.beside, ""):
        if head_count_in(found) is not None:
            return where, found
    beside = stored.folder / "config.json"
    if beside.is_file() and head_count_in(found := read_json_object(beside)) is not None:
        return beside.name, found
    return "", {}


def head_count_in(values: Mapping[str, Any]) -> int | None:
    """The head count among settings."""
    found = (values.get(name) for name in HEADS)
    return next((value for value in found if isinstance(value, int) and not isinstance(value, bool)), None)


def head_count(path: Path, emb_dim: int, stated: int | None, given: int | None, *, where: str, how: str) -> int:
    """The head count that somebody stated. Weights of one width fit any that divides it, and make other models.

    Args:
        stated: the count in the configuration, which messages call `where`.
        given: the count of the user's `--heads`.
        how: the ways to state it.

    Raises:
        CheckpointError: the two differ.
        UnstatedError: there is neither, or it does not divide the width.
    """
    if given is not None and stated is not None and given != stated:
        raise CheckpointError(f"n_heads is {stated} in {where} and {given} in --heads; leave one of them out")
    count = stated if given is None else given
    fitting = ", ".join(str(n) for n in range(1, emb_dim + 1) if emb_dim % n == 0)
    if count is None:
        raise UnstatedError(
            f"{path} does not say how many heads there are, and every number of heads is another model; pass "
            f"{how}--heads with one of {fitting}"
        )
    if given is not None and (given < 1 or emb_dim % given):
        raise UnstatedError(
            f"{path} has a width of {emb_dim}, which {given} heads do not divide; pass --heads with one of {fitting}"
        )
    return count


def _settings(values: Mapping[str, Any], at: str, depth: int = 0) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for key, value in values.items():
        found = attributes(value)
        if found:
            where = f"{at}{key}"
            yield where, found
            if depth < _DEEPEST:
                yield from _settings(found, f"{where}.", depth + 1)
