"""Pages of mapped checkpoints, let go once they have been read."""

from __future__ import annotations

import bisect
import ctypes
import logging
import mmap
import sys
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

logger = logging.getLogger(__name__)

_MAPS = Path("/proc/self/smaps")


def let_go(tensors: Iterable[Tensor]) -> None:
    """Takes the pages of file-backed tensors out of this process; the next read maps them again from the page cache.

    They would otherwise count as its memory until the end, though nothing needs them at the moment. Tensors in
    anonymous memory are left alone: their pages have no file to come back from. Does nothing but on Linux.
    """
    if not sys.platform.startswith("linux"):
        return
    ranges = _file_backed()
    starts = [start for start, _ in ranges]
    libc = ctypes.CDLL(None, use_errno=True)
    page = mmap.PAGESIZE
    for tensor in tensors:
        if not tensor.numel() or tensor.device.type != "cpu":
            continue
        storage = tensor.untyped_storage()
        first, last = storage.data_ptr(), storage.data_ptr() + storage.nbytes()
        at = bisect.bisect_right(starts, first) - 1
        if at < 0 or last > ranges[at][1]:
            continue
        start, stop = -(-first // page) * page, last // page * page
        if stop > start and libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), mmap.MADV_DONTNEED):
            logger.debug("madvise failed: errno %d", ctypes.get_errno())


def _file_backed() -> list[tuple[int, int]]:
    """Start and end of every mapping that holds nothing but its file's pages, in order of address.

    A private mapping that was written to has pages of its own (`Anonymous`, or `Swap`), which would be lost: it is
    left out.
    """
    ranges: list[tuple[int, int]] = []
    current = None
    for line in _MAPS.read_text().splitlines():
        words = line.split(maxsplit=5)
        if "-" in words[0] and not words[0].endswith(":"):
            start, _, stop = words[0].partition("-")
            current = (int(start, 16), int(stop, 16)) if words[4] != "0" else None
        elif words[0] in ("Anonymous:", "Swap:") and words[1] != "0":
            current = None
        elif words[0] == "VmFlags:" and current:  # the last line of a mapping
            ranges.append(current)
    return ranges
