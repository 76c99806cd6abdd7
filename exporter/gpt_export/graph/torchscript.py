"""Scripted modules to and from `model.pt`, with bytes that depend on nothing but the module."""

from __future__ import annotations

import io
import itertools
import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import IO

import torch

from gpt_export.artifact.hashing import sha256_of
from gpt_export.errors import ArtifactError, OutputError, ScriptError
from gpt_export.graph.script import deprecations_hidden
from gpt_export.graph.torchscript_names import canonical_names, rename_code, rename_pickle

_ROOT = "model"
_DATA_ALIGNMENT = 64
_LOCAL_HEADER_BYTES = 30
_EXTRA_HEADER_BYTES = 4
_EPOCH = (1980, 1, 1, 0, 0, 0)
_WRITER = "PytorchStreamWriter"
"""What torch calls the writer of its files in its messages."""
_CONSTANT = re.compile(rb"  \w+ : Final\[")
_COPY_BYTES = 16 * 1024 * 1024
_CODE_BYTES = 1024 * 1024
"""More than the code and the directory of any module so far."""


def save(scripted: torch.jit.ScriptModule, path: Path) -> str:
    """Writes `scripted` to `path` and returns the file's SHA-256. The same module gives the same bytes anywhere.

    `torch.jit.save` puts the file's name, absolute source paths (`*.debug_pkl`) and a random serialization id into
    its zip, class constants in the order of a set, and classes under numbers that depend on what the process compiled
    before. A loader needs none of that: here it is left out, sorted, or numbered anew (`torchscript_names`), each
    entry on a 64-byte boundary as torch has it.

    Raises:
        OSError, OutputError: the file cannot be written.
        ScriptError: torch scripts the module and cannot save what it made.
    """
    draft = path.with_name(path.name + ".draft")
    try:
        _reserve(scripted, draft)
        with deprecations_hidden():
            torch.jit.save(scripted, str(draft))
        with zipfile.ZipFile(draft) as source, zipfile.ZipFile(path, "x", zipfile.ZIP_STORED) as target:
            _copy_canonically(source, target)
    except RuntimeError as error:
        said = str(error).splitlines()[0]
        if _WRITER in said:
            raise OutputError(f"{path} cannot be written: {said}; free space and try again") from error
        raise _unsaved(scripted, said) from error
    finally:
        draft.unlink(missing_ok=True)
    return sha256_of(path)


def check_saves(scripted: torch.jit.ScriptModule) -> None:
    """Tries whether torch can save `scripted`, in memory; on the meta device that costs the size of its code.

    Raises:
        ScriptError: it cannot.
    """
    try:
        with deprecations_hidden():
            torch.jit.save(scripted, io.BytesIO())
    except RuntimeError as error:
        raise _unsaved(scripted, str(error).splitlines()[0]) from error


def _unsaved(scripted: torch.jit.ScriptModule, said: str) -> ScriptError:
    return ScriptError(
        f"{scripted.original_name} scripts and cannot be saved: {said}; write the types of its arguments, or leave "
        "torchscript out"
    )


def _reserve(scripted: torch.jit.ScriptModule, draft: Path) -> None:
    """Fails like a write if `draft` cannot have its size: torch aborts the whole process when its disk fills up."""
    if hasattr(os, "posix_fallocate"):
        tensors = itertools.chain(scripted.parameters(), scripted.buffers())
        with draft.open("xb") as file:
            os.posix_fallocate(file.fileno(), 0, _CODE_BYTES + sum(tensor.nbytes for tensor in tensors))


def load(path: Path) -> torch.jit.ScriptModule:
    """The module that `save` wrote, on the CPU and in the mode it was saved in, as its users get it.

    Raises:
        ArtifactError: torch refuses the file.
    """
    try:
        with deprecations_hidden():
            module: torch.jit.ScriptModule = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError) as error:
        raise ArtifactError(f"torch cannot load {path}: {str(error).splitlines()[0]}; export it again") from error
    return module


def _copy_canonically(source: zipfile.ZipFile, target: zipfile.ZipFile) -> None:
    entries = {entry.filename.split("/", 1)[1]: entry for entry in source.infolist()}
    code = {name: source.read(entry) for name, entry in entries.items() if name.endswith(".py")}
    pickled = source.read(entries["data.pkl"])
    names = canonical_names(pickled, code)
    for name, entry in entries.items():
        if name in code or name.endswith(".debug_pkl") or name == ".data/serialization_id":
            continue
        with _aligned(target, name) as writer:
            if name == "data.pkl":
                writer.write(rename_pickle(pickled, names))
            else:
                with source.open(entry) as reader:
                    shutil.copyfileobj(reader, writer, _COPY_BYTES)
    for name, text in rename_code(code, names).items():
        with _aligned(target, name) as writer:
            writer.write(_sort_constants(text))


def _aligned(target: zipfile.ZipFile, name: str) -> IO[bytes]:
    """A new entry to write to, its data on a boundary."""
    entry = zipfile.ZipInfo(f"{_ROOT}/{name}", date_time=_EPOCH)
    assert target.fp is not None
    data_at = target.fp.tell() + _LOCAL_HEADER_BYTES + len(entry.filename.encode()) + _EXTRA_HEADER_BYTES
    padding = -data_at % _DATA_ALIGNMENT
    entry.extra = b"FB" + padding.to_bytes(2, "little") + bytes(padding)
    return target.open(entry, "w", force_zip64=False)


def _sort_constants(code: bytes) -> bytes:
    """Runs of class constants in alphabetical order; torch lists them in that of a set, which differs by process."""
    runs = itertools.groupby(code.splitlines(keepends=True), key=lambda line: _CONSTANT.match(line) is not None)
    return b"".join(line for is_constant, run in runs for line in (sorted(run) if is_constant else run))
