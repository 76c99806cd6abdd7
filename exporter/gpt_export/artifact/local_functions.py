"""Functions of an ONNX file's own, which onnxruntime puts where they are called before it can say anything.

What gpt-export writes has none, so nearly every file is told in a few bytes, without onnx.
"""

from __future__ import annotations

import mmap
from pathlib import Path

_FUNCTIONS = 25
"""`ModelProto.functions`."""
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def check_functions(path: Path) -> None:
    """Refuses a file whose functions, put where they are called, are more nodes than any model has.

    Where onnx is not installed, nothing is refused: onnxruntime alone can run a model.

    Raises:
        ArtifactError: they are, or they call themselves, or the file is no model.
    """
    if not _has_functions(path):
        return
    try:
        from gpt_export.artifact.onnx_bytes import read_proto
    except ImportError:
        return
    read_proto(path)


def _has_functions(path: Path) -> bool:
    """Whether the outermost message has functions; False of what is no file, or no message, which others tell."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _FUNCTIONS in _fields(data)
    except (OSError, ValueError, IndexError):
        return False


def _fields(data: mmap.mmap) -> set[int]:
    """The numbers of the fields of a message, those within it left out."""
    at, found = 0, set()
    while at < len(data):
        tag, at = _varint(data, at)
        found.add(tag >> 3)
        kind = tag & 7
        if kind == _VARINT:
            _, at = _varint(data, at)
        elif kind == _LENGTH:
            size, at = _varint(data, at)
            at += size
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError("no message")
    return found


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("no number")
