"""The bytes of an ONNX file, walked before protobuf makes objects of them, so that a bad file costs next to nothing.

Protobuf reads a file whole, takes a hundred bytes for an empty message of two, and hands out names that are no UTF-8
one by one. Here the file is mapped and only tags and lengths are looked at (`wire`).
"""

from __future__ import annotations

import mmap
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError
from gpt_export_models.regular_files import check_name, open_file
from onnx import ModelProto

from gpt_export.artifact.inlining import MOST_NODES, inlined_nodes
from gpt_export.artifact.wire import FIXED_BYTES, LENGTH, VARINT, MalformedError, number_at
from gpt_export.errors import ArtifactError

MOST_MESSAGES = 1_000_000
"""Nodes, attributes, tensors, dims and all else that has fields; a decoder of a hundred layers has 100,000."""
MOST_NUMBERS_BYTES = 2**28
"""Of numbers that are spelled one by one, a byte and more each, and take eight in memory. Weights are raw bytes."""
_DEEPEST = 100
_LARGEST = 2**31
_FIXED = (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE)


def read_proto(path: Path) -> ModelProto:
    """The model in a file, whatever its name ends with; external data is not touched.

    Raises:
        ArtifactError: there is no such file, it is not an ONNX model or only the beginning of one, or it takes more
            memory or work than any model.
    """
    try:
        check_name(path)
        with open_file(path) as file:
            data = _checked(path, file)
        proto: ModelProto = ModelProto.FromString(data)
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} does not exist; name an artifact folder or an .onnx file") from error
    except OSError as error:
        what = error.strerror or error
        raise ArtifactError(f"{path} cannot be read: {what}; name an artifact folder or an .onnx file") from error
    except (DecodeError, ValueError) as error:
        raise ArtifactError(
            f"{path} is not an ONNX model, or is cut short: {error}; export or copy it again"
        ) from error
    if not proto.ir_version or not proto.opset_import or not (proto.graph.node or proto.graph.output):
        raise ArtifactError(f"{path} is not an ONNX model: it has no graph; name an artifact folder or an .onnx file")
    if odd := [entry for entry in proto.opset_import if not 0 <= entry.version < _LARGEST]:
        said = f"version {odd[0].version} of the operators of {odd[0].domain or 'ai.onnx'!r}"
        raise ArtifactError(f"{path} imports {said}, which there cannot be; export it again")
    count = inlined_nodes(proto)
    if count is None or count > MOST_NODES:
        said = "call themselves" if count is None else f"make {count} nodes of it where they are called"
        raise ArtifactError(f"{path} has functions that {said}, at most {MOST_NODES} are looked at; export it again")
    return proto


def _checked(path: Path, file: Any) -> bytes:
    """All bytes of the open file, which are worth being parsed."""
    size = file.seek(0, 2)
    file.seek(0)
    if size >= _LARGEST:
        head = file.read(2**16)
        if not head.strip(b"\0"):
            raise MalformedError("it holds zeros")
        raise ArtifactError(f"{path} has 2 GB or more, which protobuf cannot read; keep the weights external")
    if not size:
        raise MalformedError("it is empty")
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
        _Walk(view).message(0, size, ModelProto.DESCRIPTOR, 0)
        return bytes(view)


class _Walk:
    """One pass over the bytes, and what it may still come upon."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._messages = MOST_MESSAGES
        self._numbers = MOST_NUMBERS_BYTES

    def message(self, at: int, end: int, kind: Descriptor, depth: int) -> None:
        """Walks the message of a kind that lies at these bytes.

        Raises:
            MalformedError: it is none, or is beyond the bounds.
        """
        if depth > _DEEPEST:
            raise MalformedError(f"it is nested more than {_DEEPEST} deep")
        data, fields = self._data, _fields(kind)
        while at < end:
            tag, at = number_at(data, at, end)
            wire = tag & 7
            if wire == LENGTH:
                length, at = number_at(data, at, end)
                stop = at + length
                if stop > end:
                    raise MalformedError(f"a {kind.name} ends at byte {end}, its field {tag >> 3} at {stop}")
                if (field := fields.get(tag >> 3)) is not None:
                    self._field(field, at, stop, depth)
                at = stop
            elif wire == VARINT:
                _, at = number_at(data, at, end)
            elif wire in FIXED_BYTES:
                at += FIXED_BYTES[wire]
            else:
                raise MalformedError(f"byte {at} is no beginning of a field of a {kind.name}")
            if tag < 8 or at > end:
                raise MalformedError(f"byte {min(at, len(data))} is no end of a field of a {kind.name}")

    def _field(self, field: FieldDescriptor, at: int, stop: int, depth: int) -> None:
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            self._messages -= 1
            if self._messages < 0:
                raise MalformedError(f"it has more than {MOST_MESSAGES} parts")
            self.message(at, stop, field.message_type, depth + 1)
        elif field.type == FieldDescriptor.TYPE_STRING:
            try:
                str(self._data[at:stop], "utf-8")
            except UnicodeDecodeError as error:
                head = bytes(self._data[at : min(stop, at + 40)])
                raise MalformedError(f"a {field.full_name} is not UTF-8, {head!r}") from error
        elif field.type not in (*_FIXED, FieldDescriptor.TYPE_BYTES):
            self._numbers -= stop - at
            if self._numbers < 0:
                raise MalformedError(f"it spells more than {MOST_NUMBERS_BYTES} bytes of numbers one by one")


@cache
def _fields(kind: Descriptor) -> dict[int, FieldDescriptor]:
    return dict(kind.fields_by_number)
