"""SHA-256 of files, and of data on its way to a file."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from gpt_export_models.regular_files import open_file
from numpy.typing import NDArray


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class HashingWriter:
    """A new file whose SHA-256 is taken on a second core while the bytes are written.

    At most one chunk waits for the hash, so memory stays at two chunks.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb")
        self._hash = hashlib.sha256()
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._pending: Future[None] | None = None
        self.size_bytes = 0

    def write(self, data: bytes | NDArray[np.generic]) -> None:
        """Appends `data`, which must not change afterwards."""
        view = memoryview(data if isinstance(data, bytes) else data.data).cast("B")
        previous, self._pending = self._pending, self._pool.submit(self._hash.update, view)
        self._file.write(view)
        self.size_bytes += view.nbytes
        if previous:
            previous.result()

    def pad_to(self, offset: int) -> None:
        """Appends zeros up to `offset`."""
        if offset > self.size_bytes:
            self.write(bytes(offset - self.size_bytes))

    @property
    def sha256(self) -> str:
        """SHA-256 of all that was written, in hex."""
        if self._pending:
            self._pending.result()
        return self._hash.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
        self._file.close()
