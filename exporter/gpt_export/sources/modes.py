"""A module in eval mode for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn


@contextlib.contextmanager
def evaluating(module: Any) -> Iterator[None]:
    """Puts `module` in eval mode inside, and each of its parts back in the mode it came in; ignores what is none."""
    modes = {part: part.training for part in module.modules()} if isinstance(module, nn.Module) else {}
    try:
        if modes:
            module.eval()
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
