"""The known checkpoint families, and which of them a file belongs to."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from gpt_export_models.checkpoints.adapters import Adapter, read_adapter
from gpt_export_models.checkpoints.advice import PEFT, what_names_say
from gpt_export_models.checkpoints.checkpoint import Checkpoint
from gpt_export_models.checkpoints.containers import find_state, tensor_names, without_wrappers
from gpt_export_models.checkpoints.folders import meant_folder
from gpt_export_models.checkpoints.merging import merge
from gpt_export_models.checkpoints.statements import LORA_ALPHA
from gpt_export_models.checkpoints.stored import Stored, read_stored
from gpt_export_models.errors import CheckpointError, ConfigError


def _never(_name: str) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One way to lay out a GPT in files."""

    name: str
    landmark: re.Pattern[str]
    """What a name of this family matches from its beginning on; whatever stands before it is a wrapper's."""
    recognises: Callable[[Mapping[str, Any], Mapping[str, Any]], bool]
    """Whether tensors with such names, and what lies beside them, are of this family. Families do not overlap."""
    reads: Callable[[Stored, Path | None, int | None], Checkpoint]
    """The checkpoint in the stored values, with a configuration file or a head count if the user gave one."""
    holds_transposed: Callable[[str], bool] = _never
    """Whether the matrix of that name is held as (in, out)."""
    tied: Mapping[str, str] = field(default_factory=dict)
    """A head that files may leave out, and the name, or the end of it, of the embedding that it then is."""


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


def recognise(stored: Stored) -> tuple[Family, Stored]:
    """The family that `stored` belongs to, by what it holds and not by what it is called; and its tensors unwrapped.

    Raises:
        CheckpointError: it belongs to none.
    """
    names = [without_wrappers(name) for name in tensor_names(stored.values)]
    wrapped = any(PEFT.search(name) for name in names)
    for family in () if wrapped else _FAMILIES.values():
        held = find_state(stored.values, family.landmark)
        if held is not None and family.recognises(held.state, held.beside):
            notes = (*stored.notes, *held.notes)
            return family, replace(stored, values=held.state, beside=held.beside, notes=notes)
    words = what_names_say(stored.path, names or list(stored.values)).replace("{families}", ", ".join(family_names()))
    raise CheckpointError(f"{stored.path} {words}")


def read_checkpoint(
    path: Path,
    *,
    config_file: Path | None = None,
    heads: int | None = None,
    adapter: Path | None = None,
    lora_alpha: float | None = None,
) -> Checkpoint:
    """The GPT at `path`, a file or a folder, with its weights mapped and not copied.

    Args:
        path: a file, an index of shards, or a folder that holds one checkpoint.
        config_file: a JSON file with what the checkpoint itself does not say.
        heads: how many heads attend, where neither of them says it.
        adapter: a folder of PEFT's, whose changes are merged into the weights.
        lora_alpha: the scaling of the low-rank layers in a state dict of the book's, where the file does not say it.

    Raises:
        CheckpointError: it cannot be read, is of no known family, or its weights and configuration do not fit.
    """
    path, notes = meant_folder(Path(path))
    stored = read_stored(path)
    family, stored = recognise(replace(stored, notes=(*stored.notes, *notes)))
    if lora_alpha is not None:
        stored = replace(stored, beside={**stored.beside, LORA_ALPHA: lora_alpha})
    if adapter is not None:
        stored = _with_adapter(family, stored, read_adapter(adapter))
    return family.reads(stored, config_file, heads)


def _with_adapter(family: Family, stored: Stored, adapter: Adapter) -> Stored:
    """`stored` with the adapter merged; a head that is the embedding comes apart from it where one of them changes."""
    values = {name: value for name, value in stored.values.items() if isinstance(value, Tensor)}
    tied = {}
    for head, end in family.tied.items():
        embedding = next((name for name in values if name == end or name.endswith(f".{end}")), None)
        if embedding is None and head in values:  # safetensors keeps one name of shared tensors
            embedding = next((f"{name.partition('.')[0]}." for name in values if ".h." in name), "") + end
            values[embedding] = values.pop(head)
        if embedding is not None:
            tied[head] = embedding
    values = merge(values, adapter, held_transposed=family.holds_transposed, tied=tied)
    return replace(stored, values={**stored.values, **values}, files=(*stored.files, *adapter.files))
