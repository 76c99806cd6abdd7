"""The folder of a run: a record of what decides its figures, and parts, each put in place by one rename.

A part is there whole or not at all. Whoever takes the run up again gives the same settings, and does what is not there.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gpt_export_models.regular_files import OBJECT_BYTES, read_text

from gpt_export.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows: two runs in one folder are not noticed there
    fcntl = None  # type: ignore[assignment]

RUN = "run.json"
PARTS = "parts"
_PART = re.compile(r"part-([0-9]{7,})\.json")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class RunFolder:
    """Where a run's parts are. Use `open_run`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._parts = folder / PARTS

    def done(self) -> list[int]:
        """Numbers of the parts that are there, in order."""
        return sorted(int(found[1]) for path in self._parts.iterdir() if (found := _PART.fullmatch(path.name)))

    def read(self, number: int) -> dict[str, Any]:
        """A part's record.

        Raises:
            OutputError: it cannot be read, so somebody changed it.
        """
        path = self._path(number)
        try:
            record: dict[str, Any] = json.loads(read_text(path))
        except (OSError, ValueError) as error:
            raise OutputError(f"{path} cannot be read ({error}); remove it and go on with --resume") from error
        return record

    def write(self, number: int, record: Mapping[str, Any]) -> None:
        """Puts a part in place.

        Raises:
            OutputError: the disk is full, or the folder cannot be written.
        """
        write_text(self._path(number), json.dumps(record, separators=(",", ":")) + "\n")

    def _path(self, number: int) -> Path:
        return self._parts / f"part-{number:07d}.json"


@contextlib.contextmanager
def open_run(folder: Path, record: Mapping[str, Any], *, resume: bool) -> Iterator[RunFolder]:
    """The folder, locked against another run for as long as it is used.

    Args:
        record: what decides the figures, in JSON values.
        resume: go on with a run that is there; if none is, this begins one.

    Raises:
        OutputError: the folder holds something else, a run that is not to be resumed or has other settings, or it
            cannot be written.
    """
    wanted = json.loads(json.dumps(record))
    _check(folder, wanted, resume)
    with writing(folder):
        (folder / PARTS).mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        if fcntl:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise OutputError(f"another run is writing into {folder}; wait for it, or choose another") from error
        for path in (*folder.glob(".draft-*"), *(folder / PARTS).glob(".draft-*")):
            path.unlink(missing_ok=True)  # of a run that was killed while it wrote
        if not (folder / RUN).exists():
            write_text(folder / RUN, json.dumps(wanted, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
        yield RunFolder(folder)
    finally:
        os.close(lock)


def write_text(path: Path, text: str) -> None:
    """Puts a file in its place by one rename, on the disk before it is there.

    Raises:
        OutputError: the disk is full, or the folder cannot be written; what was there before still is.
    """
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A draft beside `path` to write to, which takes its place at the end.

    Raises:
        OutputError: as in `write_text`.
    """
    draft = path.with_name(f".draft-{path.name}")
    with writing(path):
        try:
            yield draft
            with draft.open("rb") as file:
                os.fsync(file.fileno())
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns the system's refusals into sentences."""
    try:
        yield
    except OSError as error:
        remedy = "free space and go on with --resume" if error.errno in FULL else "choose another --output"
        raise OutputError(f"{path} was not written: {error.strerror or error}; {remedy}") from error


def remove_run(folder: Path) -> None:
    """Removes a run's folder."""
    shutil.rmtree(folder, ignore_errors=True)


def _check(folder: Path, wanted: Mapping[str, Any], resume: bool) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not folder.is_dir():
        raise OutputError(f"{folder} is a file, the results are a folder; choose another --output")
    try:
        found = json.loads(read_text(folder / RUN, largest=OBJECT_BYTES))
    except (OSError, ValueError) as error:
        raise OutputError(
            f"{folder} is not empty and holds no run of gpt-export ({RUN} is missing); choose another --output"
        ) from error
    other = sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
    if other:
        told = ", ".join(f"{key} {_short(found.get(key))} instead of {_short(wanted.get(key))}" for key in other[:3])
        raise OutputError(f"{folder} holds another run, with {told}; choose another --output, or give its settings")
    if not resume:
        raise OutputError(f"{folder} holds this run already; go on with --resume, or choose another --output")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 60 else f"{text[:59]}…"
