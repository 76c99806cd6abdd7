"""Weights that the file holds twice."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from math import prod

import numpy as np
from onnx import TensorProto

from gpt_export.artifact.element_sizes import size_bytes
from gpt_export.artifact.onnx_model import OnnxModel
from gpt_export.linting.finding import Finding, Severity, tensor
from gpt_export.linting.registry import rule
from gpt_export.linting.settings import LintSettings
from gpt_export.linting.tensors import CHUNK_BYTES, External, Stored, UnreadableError, external, readable_size, stored

DUPLICATE = rule(
    "GX121",
    Severity.WARNING,
    "two weights have equal bytes: a tied embedding was stored twice",
    "let both readers name one initializer",
)
DUPLICATE_TRANSPOSED = rule(
    "GX122",
    Severity.WARNING,
    "a weight is the transpose of another one: a tied embedding was stored twice",
    "keep one and multiply with Gemm transB=1, which reads the other's layout without a copy",
)
SMALLEST_BYTES = 1024
"""Below, a copy costs nothing. Vectors are left out too: biases of zeros and gains of ones are equal by nature."""
_MOST_LIKELY = 32
"""Matrices of equal ends or corners that one is compared with: thousands of them would be millions of pairs."""
END_BYTES = 64
"""Read at both ends of every weight before anything else is."""


def duplicate_weights(model: OnnxModel, _settings: LintSettings) -> Iterator[Finding]:
    """Pairs of matrices with equal content. Ends and corners are compared first, so that hardly any bytes are read."""
    groups: dict[tuple[int, int], list[_Matrix]] = {}
    for name, value in model.initializers.items():
        if (matrix := _matrix(name, value, model)) is not None:
            groups.setdefault((value.data_type, matrix.bytes.size), []).append(matrix)
    for matrices in groups.values():
        seen: dict[object, list[_Matrix]] = defaultdict(list)
        for second in matrices:
            likely = (*seen[second.ends][:_MOST_LIKELY], *seen[second.turned_corners][:_MOST_LIKELY])
            if found := next((each for first in dict.fromkeys(likely) if (each := _compare(first, second))), None):
                yield found
            seen[second.ends].append(second)
            seen[tuple(second.corners)].append(second)


class _Matrix:
    """One tensor as rows and columns: its name, bytes and place; digests are made when first asked for.

    More than two axes, as packed weights have, count as one axis of columns.
    """

    def __init__(self, name: str, dims: Sequence[int], source: Stored, place: External | None) -> None:
        self.name = name
        self.dims = tuple(dims)
        self.bytes = source
        self.place = place
        self.rows = dims[0]
        self.columns = prod(dims[1:])
        self.item = source.size // (self.rows * self.columns)
        self.ends = source.read(0, END_BYTES), source.read(source.size - END_BYTES, END_BYTES)
        self.corners = [
            source.read((row * self.columns + column) * self.item, self.item)
            for row, column in ((0, 0), (0, self.columns - 1), (self.rows - 1, 0), (self.rows - 1, self.columns - 1))
        ]
        self.turned_corners = tuple(self.corners[index] for index in (0, 2, 1, 3))
        self._digests: dict[bool, bytes] = {}
        self._constant: bool | None = None

    def digest(self, *, transposed: bool = False) -> bytes:
        """SHA-256 of the elements in the order of the rows, or of the columns."""
        if transposed not in self._digests:
            digest = hashlib.sha256()
            for part in self._columns() if transposed else self.bytes.chunks():
                digest.update(part)
            self._digests[transposed] = digest.digest()
        return self._digests[transposed]

    def is_constant(self) -> bool:
        """Whether all elements are equal, which says nothing about where they came from."""
        if self._constant is None:
            first = self.corners[0]
            parts = (part == first * (len(part) // self.item) for part in self.bytes.chunks(self.item))
            self._constant = len(set(self.corners)) == 1 and all(parts)
        return self._constant

    def _columns(self) -> Iterator[bytes]:
        """The bytes of the transpose, a block of columns at a time, each made from strips of rows."""
        width = max(1, 2 * CHUNK_BYTES // (self.rows * self.item))
        height = max(1, CHUNK_BYTES // (self.columns * self.item))
        for left in range(0, self.columns, width):
            strips = []
            for top in range(0, self.rows, height):
                count = min(height, self.rows - top)
                data = self.bytes.read(top * self.columns * self.item, count * self.columns * self.item)
                strip = np.frombuffer(data, f"V{self.item}").reshape(count, self.columns)
                strips.append(strip[:, left : left + width].copy())
            yield np.ascontiguousarray(np.concatenate(strips).T).tobytes()


def _matrix(name: str, value: TensorProto, model: OnnxModel) -> _Matrix | None:
    size = size_bytes(value)
    if size is None or size < SMALLEST_BYTES or len(value.dims) < 2 or size % prod(value.dims):
        return None
    try:
        return _Matrix(name, value.dims, stored(value, model.path), external(value))
    except (UnreadableError, ValueError):
        return None


def _compare(first: _Matrix, second: _Matrix) -> Finding | None:
    if first.place is not None and first.place == second.place:
        return None  # two names for the same bytes of the same file cost nothing
    same = first.ends == second.ends
    swapped = len(first.dims) == 2 and first.dims[::-1] == second.dims
    swapped = swapped and [first.corners[index] for index in (0, 2, 1, 3)] == second.corners
    try:
        if not (same or swapped) or first.is_constant():
            return None
        if same and first.digest() == second.digest():
            return _found(first, second, transposed=False)
        if swapped and first.digest() == second.digest(transposed=True):
            return _found(first, second, transposed=True)
    except UnreadableError:
        return None
    return None


def _found(first: _Matrix, second: _Matrix, *, transposed: bool) -> Finding:
    shape = " x ".join(map(str, second.dims))
    what = f"the transpose of {first.name}" if transposed else f"equal to {first.name}"
    message = f"{second.name} ({shape}) is {what}; its {readable_size(second.bytes.size)} are there twice"
    return (DUPLICATE_TRANSPOSED if transposed else DUPLICATE).found(tensor(second.name), message)
