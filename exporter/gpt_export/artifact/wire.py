"""Protobuf's wire format, so far as a message is passed over without being parsed; needs neither onnx nor protobuf.

Format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import mmap

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
"""How a field is written, in the last three bits of its tag."""
FIXED_BYTES = {FIXED64: 8, FIXED32: 4}


class MalformedError(ValueError):
    """Bytes that are no message of the kind that they should be, or one beyond all bounds."""


def number_at(data: memoryview | mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """The variable-length number at a byte, and the byte behind it.

    Raises:
        MalformedError: it does not end before byte `end`, or after ten bytes.
    """
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        if byte < 0x80:
            return value | byte << shift, at
        value |= (byte & 0x7F) << shift
        shift += 7
    raise MalformedError(f"byte {at} is within a number that does not end")
