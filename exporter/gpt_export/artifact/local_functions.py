"""Functions of an ONNX file's own, which onnxruntime puts where they are called before it can say anything.

What gpt-export writes has none, so nearly every file is told in a few bytes, without onnx.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from gpt_export.artifact.wire import FIXED_BYTES, LENGTH, VARINT, MalformedError, number_at

_FUNCTIONS = 25
"""`ModelProto.functions`."""


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
    except (OSError, ValueError):
        return False


def _fields(data: mmap.mmap) -> set[int]:
    """The numbers of the fields of a message, those within it left out."""
    at, found = 0, set()
    while at < len(data):
        tag, at = number_at(data, at, len(data))
        found.add(tag >> 3)
        kind = tag & 7
        if kind == VARINT:
            _, at = number_at(data, at, len(data))
        elif kind == LENGTH:
            size, at = number_at(data, at, len(data))
            at += size
        elif kind in FIXED_BYTES:
            at += FIXED_BYTES[kind]
        else:
            raise MalformedError("no message")
    return found
