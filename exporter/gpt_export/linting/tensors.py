"""Tensors read a few megabytes at a time, wherever their bytes are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gpt_export_models.regular_files import check_file, open_file
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from gpt_export.artifact.element_sizes import size_bytes

CHUNK_BYTES = 8 * 1024 * 1024
_MOST_BYTES_AN_ELEMENT = 16
"""In memory, of one that takes a byte in the file."""


class UnreadableError(Exception):
    """The bytes of a tensor are not there; the rules on external data say why."""


@dataclass(frozen=True, slots=True)
class External:
    """Where external data is said to be. `offset` and `length` are as written, None if left out."""

    location: str
    offset: int | None
    length: int | None


def external(tensor: TensorProto) -> External | None:
    """Where the tensor's bytes are outside the model's file, None if they are in it.

    Raises:
        ValueError: the entry has no location, or numbers that are none.
    """
    if tensor.data_location != TensorProto.EXTERNAL:
        return None
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if not location:
        raise ValueError("it names no file")
    numbers = [int(entries[key]) if key in entries else None for key in ("offset", "length")]
    if any(number is not None and number < 0 for number in numbers):
        raise ValueError("its offset or length is negative")
    return External(location, *numbers)


def inside(model_path: Path, location: str) -> Path | None:
    """The file that `location` names, None if it lies outside the model's folder: absolute, climbing, or by a link;
    and where no file can have that name.

    Where the model itself is a link, the folder that it leads to counts too: Hugging Face's cache is made that way, and
    onnxruntime reads it.
    """
    if "\0" in location or Path(location).is_absolute() or ".." in location.replace("\\", "/").split("/"):
        return None
    path = model_path.parent / location
    try:
        real = path.resolve()
    except (OSError, RuntimeError):  # a name that is too long, or links that go round
        return None
    allowed = (model_path.parent.resolve(), model_path.resolve().parent)
    return path if any(real.is_relative_to(folder) for folder in allowed) else None


def unreadable(path: Path) -> str:
    """Why the file cannot be read, for the end of a sentence; empty where it can."""
    try:
        check_file(path)
    except FileNotFoundError:
        return "which does not exist"
    except OSError as error:
        return f"which cannot be read: {error.strerror or error}"
    return ""


@dataclass(frozen=True, slots=True)
class Stored:
    """The bytes of one tensor, opened but not read."""

    size: int
    source: bytes | Path
    start: int = 0

    def read(self, start: int, length: int) -> bytes:
        """Some of the bytes.

        Raises:
            UnreadableError: the file ends before, or cannot be read.
        """
        if isinstance(self.source, bytes):
            return self.source[start : start + length]
        try:
            with open_file(self.source) as file:
                file.seek(self.start + start)
                data = file.read(length)
        except (OSError, OverflowError) as error:  # an offset of thirty digits
            raise UnreadableError(str(error)) from error
        if len(data) != length:
            raise UnreadableError("the file is too short")
        return data

    def chunks(self, multiple_of: int = 1) -> Iterator[bytes]:
        """All the bytes in order, `CHUNK_BYTES` at a time, each but the last a multiple of `multiple_of` bytes.

        Raises:
            UnreadableError: the file ends before, or cannot be read.
        """
        step = max(CHUNK_BYTES // multiple_of, 1) * multiple_of
        for start in range(0, self.size, step):
            yield self.read(start, min(step, self.size - start))


def stored(tensor: TensorProto, model_path: Path) -> Stored:
    """The bytes of a tensor of the model in `model_path`, little-endian as ONNX has them.

    Raises:
        UnreadableError: it has none of a known size, or they are outside the model's folder.
    """
    size = size_bytes(tensor)
    if size is None:
        raise UnreadableError("its type or its dims give no size")
    try:
        place = external(tensor)
    except ValueError as error:
        raise UnreadableError(str(error)) from error
    if place is not None:
        path = inside(model_path, place.location)
        if path is None:
            raise UnreadableError("it lies outside the folder")
        return Stored(size, path, place.offset or 0)
    if tensor.HasField("raw_data"):
        data = tensor.raw_data
    elif size > _MOST_BYTES_AN_ELEMENT * tensor.ByteSize():
        raise UnreadableError("it has fewer bytes than elements")
    else:
        try:
            data = numpy_helper.to_array(tensor).tobytes()
        except (ValueError, TypeError, MemoryError) as error:
            raise UnreadableError(str(error)) from error
    if len(data) < size:
        raise UnreadableError("it has fewer bytes than elements")
    return Stored(size, data)


def elements(source: Stored, dtype: np.dtype[np.generic]) -> Iterator[NDArray[np.generic]]:
    """All elements in order as flat arrays.

    Raises:
        UnreadableError: the file ends before, or cannot be read.
    """
    for data in source.chunks(dtype.itemsize):
        yield np.frombuffer(data, dtype)


def readable_size(size: int) -> str:
    """As `25.6 MB`, `12.3 kB`, `512 bytes`."""
    if size >= 1e6:
        return f"{size / 1e6:.1f} MB"
    return f"{size / 1e3:.1f} kB" if size >= 1e3 else f"{size} bytes"


def shown(names: Sequence[str], limit: int = 3) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
