"""The known checkpoint families, and which of them a file belongs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt_export_models.checkpoints.checkpoint import Checkpoint
from gpt_export_models.checkpoints.stored import Stored, read_stored
from gpt_export_models.errors import CheckpointError, ConfigError
from gpt_export_models.problems import some


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One way to lay out a GPT in files."""

    name: str
    recognises: Callable[[Mapping[str, Any]], bool]
    """Whether the top level of what a file holds is of this family. Families do not overlap."""
    reads: Callable[[Stored, Path | None, int | None], Checkpoint]
    """The checkpoint in the stored values, with a configuration file or a head count if the user gave one."""


_FAMILIES: dict[str, Family] = {}


def register(family: Family) -> Family:
    """`family`, known from now on.

    Raises:
        ConfigError: there is a family of that name.
    """
    if family.name in _FAMILIES:
        raise ConfigError(f"the checkpoint family {family.name!r} is registered already; choose another name")
    _FAMILIES[family.name] = family
    return family


def family_names() -> tuple[str, ...]:
    """The names of the known families, sorted."""
    return tuple(sorted(_FAMILIES))


def family_named(name: str) -> Family:
    """The family of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in _FAMILIES:
        raise ConfigError(f"there is no checkpoint family {name!r}; choose one of {', '.join(family_names())}")
    return _FAMILIES[name]


def recognise(stored: Stored) -> Family:
    """The family that `stored` belongs to, by what it holds and not by what it is called.

    Raises:
        CheckpointError: it belongs to none.
    """
    for family in _FAMILIES.values():
        if family.recognises(stored.values):
            return family
    raise CheckpointError(
        f"{stored.path} holds no GPT of a known family but {some(stored.values, limit=5) or 'nothing'};"
        f" the known families are {', '.join(family_names())}"
    )


def read_checkpoint(path: Path, *, config_file: Path | None = None, heads: int | None = None) -> Checkpoint:
    """The GPT at `path`, a file or a folder, with its weights mapped and not copied.

    Args:
        path: a file, an index of shards, or a folder that holds one checkpoint.
        config_file: a JSON file with what the checkpoint itself does not say.
        heads: how many heads attend, where neither of them says it.

    Raises:
        CheckpointError: it cannot be read, is of no known family, or its weights and configuration do not fit.
    """
    stored = read_stored(Path(path))
    return recognise(stored).reads(stored, config_file, heads)
