"""The door for every file that is read: a regular one, all there, and not larger than what it is read as.

A path may name a pipe that nobody writes to, a device that never ends, or a file of a terabyte that holds nothing. Each
of them ends here, in a sentence, before a byte is read. What is refused is an `OSError`, so that whoever names the
failures of reading names these too; its `strerror` is the sentence's end.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

from gpt_export_models.errors import CheckpointError

JSON_BYTES = 64 * 2**20
"""Far above any tokenizer, the largest JSON there is beside a model."""
OBJECT_BYTES = 24 * 2**20
"""Far above any configuration, index or manifest. A file of `{},{},...` takes thirty times its bytes in memory."""
TEXT_BYTES = 2**30
"""Far above any text that is read whole: what is longer is a corpus, which is read line by line."""

_LEAST_HOLLOW = 256 * 2**20
"""Smaller files are read whatever they hold."""
_MOST_HOLLOW = 64
"""A file of which less than one part in so many is there is no model: weights do not compress like this."""
_MOST_EXTENTS = 4096
_CHUNK = 2**20
_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"))
_KINDS = (
    (stat.S_ISDIR, "it is a folder"),
    (stat.S_ISFIFO, "it is a pipe"),
    (stat.S_ISSOCK, "it is a socket"),
    (stat.S_ISCHR, "it is a device"),
    (stat.S_ISBLK, "it is a device"),
)


class RefusedFileError(OSError):
    """A path whose content is not read, whatever it is; `strerror` says why and what to do."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(errno.EINVAL, why, str(path))

    def __str__(self) -> str:
        return str(self.strerror)


def open_file(path: Path, *, largest: int | None = None) -> BufferedReader:
    """The file, opened for reading its bytes; a pipe or device is not waited for.

    Args:
        largest: how many bytes it may have; any number if left out.

    Raises:
        OSError: it is not there or may not be read; as `RefusedFileError`, it is no regular file, larger than that, or
            mostly holes.
    """
    try:
        # O_NONBLOCK: opening a pipe waits for its other end without it, and asks of regular files nothing
        number = os.open(path, _FLAGS)
    except ValueError as error:  # a path with a NUL, or one that no file system can hold
        raise RefusedFileError(path, f"no file can have this name ({error})") from error
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise RefusedFileError(path, "it is a socket, and only regular files are read") from error
        raise
    try:
        _check(path, number, largest)
        return open(number, "rb")  # noqa: PTH123 - a descriptor, for the caller to close
    except BaseException:
        os.close(number)
        raise


def read_bytes(path: Path, *, largest: int) -> bytes:
    """All bytes of the file.

    Raises:
        OSError: as in `open_file`.
    """
    parts, size = [], 0
    with open_file(path, largest=largest) as file:
        while part := file.read(_CHUNK):
            parts.append(part)
            size += len(part)
            if size > largest:  # it has grown meanwhile, or says 0 of itself as files of the kernel do
                raise _too_large(path, size, largest)
    return b"".join(parts)


def read_text(path: Path, *, largest: int = TEXT_BYTES) -> str:
    """The UTF-8 text in the file, its line ends as `\\n`.

    Raises:
        OSError: as in `open_file`.
        UnicodeDecodeError: it is no UTF-8.
    """
    text = read_bytes(path, largest=largest).decode("utf-8")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def check_file(path: Path, *, largest: int | None = None) -> int:
    """The size in bytes of a file that a library will open by its path.

    Raises:
        OSError: as in `open_file`; as `RefusedFileError` also where its path is no UTF-8, which libraries want.
    """
    check_name(path)
    with open_file(path, largest=largest) as file:
        return os.fstat(file.fileno()).st_size


def check_folder(folder: Path) -> None:
    """Refuses a folder, about to be given to a library, with an entry that no library should open.

    Raises:
        CheckpointError: there is a pipe, a device, or a file that is absurdly large or mostly holes.
    """
    try:
        check_name(folder)
        for path in sorted(folder.iterdir()):
            if not path.is_dir():
                with contextlib.suppress(FileNotFoundError, PermissionError):  # whoever needs it will say so
                    check_file(path, largest=JSON_BYTES if path.suffix in (".json", ".jinja") else None)
    except OSError as error:
        raise CheckpointError(f"{error.filename} cannot be read: {error.strerror or error}; take it away") from error


def check_name(path: Path) -> None:
    """Refuses a path that is no UTF-8, which libraries cannot be given.

    Raises:
        RefusedFileError: it is none.
    """
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:
        raise RefusedFileError(path, "its path is not UTF-8, which torch and onnxruntime need") from error


def _check(path: Path, number: int, largest: int | None) -> None:
    status = os.fstat(number)
    if not stat.S_ISREG(status.st_mode):
        kind = next((words for is_kind, words in _KINDS if is_kind(status.st_mode)), "it is something else")
        raise RefusedFileError(path, f"{kind}, and only regular files are read")
    if largest is not None and status.st_size > largest:
        raise _too_large(path, status.st_size, largest)
    if is_hollow(number):
        raise RefusedFileError(
            path,
            f"it says {status.st_size} bytes and nearly all are holes, as of a download only begun",
        )


def is_hollow(number: int) -> bool:
    """Whether nearly all of the open file was never written, as of a download that was only begun.

    What is there is asked of the file system by extents, for the blocks of a status are 0 on some that hold everything.
    """
    status = os.fstat(number)
    if status.st_size < _LEAST_HOLLOW or not hasattr(os, "SEEK_DATA"):
        return False
    if getattr(status, "st_blocks", status.st_size) * 512 * _MOST_HOLLOW >= status.st_size:
        return False
    held = at = 0
    try:
        for _ in range(_MOST_EXTENTS):
            start = os.lseek(number, at, os.SEEK_DATA)
            at = os.lseek(number, start, os.SEEK_HOLE)
            held += at - start
            if held * _MOST_HOLLOW >= status.st_size:
                return False
    except OSError as error:
        if error.errno != errno.ENXIO:  # there is no more data behind the last hole
            return False
    finally:
        os.lseek(number, 0, os.SEEK_SET)
    return True


def _too_large(path: Path, size: int, largest: int) -> RefusedFileError:
    return RefusedFileError(path, f"it has {size} bytes, and at most {largest} are read as such")
