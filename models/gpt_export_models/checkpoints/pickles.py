"""What `torch.save` wrote, read without running anything that the file asks for."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from gpt_export_models.checkpoints.opaque import may_stand_in, stand_in
from gpt_export_models.errors import CheckpointError
from gpt_export_models.problems import some
from gpt_export_models.regular_files import check_file

_REASON = re.compile(r"WeightsUnpickler error:\s*(\S.*)")
_ASKED_FOR = re.compile(r"GLOBAL ([\w.]+)")
_MOST_CLASSES = 100
"""Of one file that stand-ins are made for; a training loop's settings have a few."""


def read_pickle(path: Path, *, mapped: bool) -> Any:
    """The object in a file of `torch.save`; with `mapped` its tensors stay in the file.

    Only `torch.load(weights_only=True)` reads it: tensors, numbers, strings and containers of them, nothing callable.
    Objects of somebody's own classes come back as `Opaque` ones, which have the values and not the code.

    Args:
        mapped: False for the format before torch 1.6, which cannot be mapped.

    Raises:
        CheckpointError: the file is damaged, compressed, or holds more than that.
    """
    try:
        check_file(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}; check the path") from error
    if mapped:
        _check_archive(path)
    named: dict[str, Any] = {}
    while True:
        try:
            with torch.serialization.safe_globals(list(named.values())):
                return torch.load(str(path), map_location="cpu", weights_only=True, mmap=mapped)
        except Exception as error:  # a crafted stream makes the unpickler fail in any way there is; all mean this
            asked = _ASKED_FOR.search(str(error))
            if asked is None or asked[1] in named or not may_stand_in(asked[1]) or len(named) == _MOST_CLASSES:
                raise CheckpointError(_explain(path, error)) from error
            named[asked[1]] = stand_in(asked[1])


def _check_archive(path: Path) -> None:
    # torch maps a record by its offset whether or not it is compressed, and would take packed bytes for weights
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError) as error:
        raise CheckpointError(
            f"{path} is a truncated or damaged archive ({some([error])}); download or save it again"
        ) from error
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        raise CheckpointError(
            f"{path} is a TorchScript archive, not a checkpoint; pass a file of torch.save(model.state_dict(), ...)"
        )
    if packed := [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]:
        raise CheckpointError(
            f"{path} is a compressed archive ({some(packed, limit=3)}), which cannot be mapped; save it with torch.save"
        )


def _explain(path: Path, error: Exception) -> str:
    text = str(error)
    asked = _ASKED_FOR.search(text)
    if asked is None:
        reason = _REASON.search(text)
        words = some([reason.group(1) if reason else f"{type(error).__name__}: {text.partition('. ')[0]}"])
        return f"{path} is damaged or not a file of torch.save ({words}); download or save it again"
    name = asked.group(1)
    if name.startswith("numpy"):
        return (
            f"{path} holds a NumPy value ({name}) beside its weights, and only tensors, numbers and strings are read;"
            " save it again with float(value) in its place"
        )
    return (
        f"{path} asks for {name}, which could run code, and only tensors, numbers and strings are read;"
        " if you trust it, save its model.state_dict() alone"
    )
