"""Work in parts that are the same on any number of cores: each part is one thread's, and the parts are fixed.

Torch splits an operator among as many threads as there are cores, and then sums in another order. Here operators have
one thread, and the cores take whole parts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


class Each(Protocol):
    """Applies a function to every part and gives the results in the order of the parts, as `map` does."""

    def __call__(self, function: Callable[[T], R], parts: Iterable[T], /) -> Iterator[R]: ...


@contextlib.contextmanager
def one_thread_a_part() -> Iterator[Each]:
    """An `Each` on as many cores as torch has threads. Inside, operators of the calling thread have one thread too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool.map
    finally:
        torch.set_num_threads(threads)
