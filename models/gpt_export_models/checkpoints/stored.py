"""What lies at a path, whatever it is called: one file, shards with an index, or a folder with either."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

from gpt_export_models.checkpoints.advice import refuse_other_file, refuse_other_files
from gpt_export_models.checkpoints.pickles import read_pickle
from gpt_export_models.checkpoints.safetensors_files import read_safetensors
from gpt_export_models.errors import CheckpointError
from gpt_export_models.json_files import read_json_object
from gpt_export_models.problems import some
from gpt_export_models.regular_files import open_file

USUAL_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""What Hugging Face calls its weights, the preferred first; other names are found by what the files hold."""

_OF_TRAINING = re.compile(
    r"training_args\.bin|.*_optim_states\.pt|(optimizer|scheduler|scaler)\.(pt|bin)|rng_state.*\.pth|adapter_model\..+"
)
"""What a trainer saves beside the weights, in files of the same kinds."""

Kind = Literal["zip", "old pickle", "plain pickle", "safetensors", "json", "lfs pointer", "empty", "unknown"]
_WEIGHTS: tuple[Kind, ...] = ("zip", "old pickle", "safetensors")

_OLD_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"  # torch.save before 1.6 starts with this pickled number
OLD_FORMAT_NOTE = "the file is in torch's format from before 1.6, which is read into memory instead of being mapped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """The values at a path before anybody knows what they mean."""

    path: Path
    """What the user gave."""
    folder: Path
    values: Mapping[str, Any]
    """What the file holds at its top; once a family is known, the model's tensors by the model's own names."""
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()
    beside: Mapping[str, Any] = field(default_factory=dict)
    """What the file says around those tensors."""


def read_stored(path: Path) -> Stored:
    """What lies at `path`, its tensors mapped.

    Raises:
        CheckpointError: nothing readable lies there, or more than one thing that it could be.
    """
    try:
        file = _weights_in(path) if path.is_dir() else path
        if not file.exists():
            raise CheckpointError(f"{path} does not exist; pass a checkpoint's file or folder")
        if not file.is_file():
            raise CheckpointError(f"{path} is neither a file nor a folder; pass a checkpoint's file or folder")
        kind = _kind(file)
        if kind == "json":
            return _read_shards(path, file)
        _refuse_shard(file)
        values = _read_weights(file, kind)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({some([error])}); check the path and its permissions") from error
    notes = (OLD_FORMAT_NOTE,) if kind == "old pickle" else ()
    return Stored(path=path, folder=file.parent, values=values, files=(file,), notes=notes)


def demand_weights(folder: Path) -> None:
    """Refuses a folder without weights, by what it holds instead.

    Raises:
        CheckpointError: it holds none, or several files that could be them.
    """
    _weights_in(folder)


def holds_weights(folder: Path) -> bool:
    """Whether `folder` holds weights that are not an adapter's."""
    return any((folder / name).is_file() for name in USUAL_NAMES) or bool(weights_in(folder))


def weights_in(folder: Path) -> list[Path]:
    """The files in `folder` that hold weights by their content; what a trainer keeps beside them is left out."""
    files = (file for file in sorted(folder.iterdir()) if file.is_file() and not _OF_TRAINING.fullmatch(file.name))
    return [file for file in files if _kind(file) in _WEIGHTS]


def _weights_in(folder: Path) -> Path:
    for name in USUAL_NAMES:
        if (folder / name).is_file():
            return folder / name
    found = weights_in(folder)
    if not found:
        refuse_other_files(folder)
        if inner := [file for part in sorted(folder.iterdir()) if part.is_dir() for file in weights_in(part)]:
            seen = some(str(file.relative_to(folder)) for file in inner)
            raise CheckpointError(f"{folder} holds no weights itself but {seen}; pass what is meant: {inner[0]}")
        raise CheckpointError(
            f"{folder} holds no weights; it needs one of {', '.join(USUAL_NAMES)} or a file of torch.save"
        )
    if len(found) > 1:
        names = some(file.name for file in found)
        raise CheckpointError(
            f"{folder} holds {len(found)} files that could be the checkpoint ({names}); pass one of them"
        )
    return found[0]


def _kind(file: Path) -> Kind:
    with open_file(file) as stream:
        head = stream.read(64)
    if not head:
        return "empty"
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    length = head[:8]  # of a safetensors header; any byte may come first, but text it is not
    if head[8:9] == b"{" and not (length.isascii() and b"\0" not in length):
        return "safetensors"
    if head.startswith(b"\x80"):
        return "old pickle" if head.startswith(_OLD_TORCH) else "plain pickle"
    if head.startswith(b"version https://git-lfs"):
        return "lfs pointer"
    return "json" if head.lstrip().startswith(b"{") else "unknown"


def _read_weights(file: Path, kind: Kind) -> Mapping[str, Any]:
    if kind == "empty":
        raise CheckpointError(f"{file} is empty; download or save it again")
    if kind == "lfs pointer":
        raise CheckpointError(f"{file} is a Git LFS pointer, not the weights; fetch them with `git lfs pull`")
    if kind == "plain pickle":
        refuse_other_file(file, b"")
        raise CheckpointError(
            f"{file} is a plain pickle, which is not read because it could run code; save it with torch.save"
        )
    if kind == "safetensors":
        return read_safetensors(file)
    if kind not in _WEIGHTS:
        with open_file(file) as stream:
            refuse_other_file(file, stream.read(16))
        raise CheckpointError(
            f"{file} is not a checkpoint; pass a safetensors file, a file of torch.save, or a folder with one"
        )
    values = read_pickle(file, mapped=kind == "zip")
    if not isinstance(values, Mapping):
        raise CheckpointError(
            f"{file} holds a {type(values).__name__}, not a dict of tensors; save model.state_dict() with torch.save"
        )
    if set(values) == {"state", "param_groups"}:
        raise CheckpointError(f"{file} is the state of an optimizer, not a model's; pass the weights beside it")
    return {str(key): value for key, value in values.items()}


def _refuse_shard(file: Path) -> None:
    """Refuses a file that an index beside it names as one of several shards."""
    for index in sorted(file.parent.glob("*.index.json")):
        homes = read_json_object(index).get("weight_map")
        shards = set(map(str, homes.values())) if isinstance(homes, dict) else set()
        if file.name in shards and len(shards) > 1:
            raise CheckpointError(f"{file} is one shard of {len(shards)} ({index.name}); pass the folder {file.parent}")


def _read_shards(path: Path, index: Path) -> Stored:
    homes = read_json_object(index).get("weight_map")
    if not isinstance(homes, dict) or not homes:
        raise CheckpointError(
            f"{index} is JSON but no index of shards, it has no weight_map; pass the weights or their folder"
        )
    shards = {name: _shard(index, name) for name in dict.fromkeys(map(str, homes.values()))}
    if lost := [name for name, file in shards.items() if not file.is_file()]:
        raise CheckpointError(f"{index} names shards that are not beside it: {some(lost)}; download them")
    values: dict[str, Any] = {}
    notes: list[str] = []
    for file in shards.values():
        kind = _kind(file)
        part = _read_weights(file, kind)
        if twice := sorted(values.keys() & part.keys()):
            raise CheckpointError(f"{file} repeats tensors of another shard: {some(twice)}; download the shards again")
        values.update(part)
        notes += [OLD_FORMAT_NOTE] if kind == "old pickle" and OLD_FORMAT_NOTE not in notes else []
    if absent := [name for name in homes if name not in values]:
        raise CheckpointError(f"{index} names tensors that are in no shard: {some(absent)}; download the shards again")
    return Stored(path=path, folder=index.parent, values=values, files=(index, *shards.values()), notes=tuple(notes))


def _shard(index: Path, name: str) -> Path:
    # a plain file name, by the rules of every system: an index must not lead out of its folder
    if (
        name in ("", ".", "..")
        or PurePosixPath(name).name != name
        or PureWindowsPath(name).name != name
        or "\0" in name
    ):
        raise CheckpointError(
            f"{index} names a shard outside its folder, {some([repr(name)])}; use an index that you trust"
        )
    return index.parent / name
