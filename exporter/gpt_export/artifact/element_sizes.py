"""How many bytes the elements of a tensor take, whatever their type and dims are said to be."""

from __future__ import annotations

from math import prod

from onnx import TensorProto

_BITS = {
    "FLOAT": 32,
    "UINT8": 8,
    "INT8": 8,
    "UINT16": 16,
    "INT16": 16,
    "INT32": 32,
    "INT64": 64,
    "BOOL": 8,
    "FLOAT16": 16,
    "DOUBLE": 64,
    "UINT32": 32,
    "UINT64": 64,
    "COMPLEX64": 64,
    "COMPLEX128": 128,
    "BFLOAT16": 16,
    "FLOAT8E4M3FN": 8,
    "FLOAT8E4M3FNUZ": 8,
    "FLOAT8E5M2": 8,
    "FLOAT8E5M2FNUZ": 8,
    "FLOAT8E8M0": 8,
    "UINT4": 4,
    "INT4": 4,
    "FLOAT4E2M1": 4,
    "UINT2": 2,
    "INT2": 2,
}
BITS: dict[int, int] = {number: _BITS[name] for name, number in TensorProto.DataType.items() if name in _BITS}
"""Bits of an element by type; strings and types that this onnx does not know are left out."""


def count(tensor: TensorProto) -> int:
    """The number of elements; 0 where a dim is negative, which no tensor has."""
    return prod(tensor.dims) if all(dim >= 0 for dim in tensor.dims) else 0


def size_bytes(tensor: TensorProto) -> int | None:
    """The bytes that the elements take, None for strings, for unknown types and for negative dims."""
    bits = BITS.get(tensor.data_type)
    return None if bits is None or any(dim < 0 for dim in tensor.dims) else -(-count(tensor) * bits // 8)
