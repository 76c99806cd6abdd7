"""What torch's exporters say on the side, sent to the log."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

logger = logging.getLogger(__name__)

_FAMILIES = ("torch", "onnxscript", "onnx_ir", "onnx", "transformers", "sympy")


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keeps warnings, prints and log records of an export off the screen; they go to this package's log at DEBUG.

    What a module itself says while it runs is among them: its eager runs say the same where they are seen.
    """
    said = io.StringIO()
    with (
        warnings.catch_warnings(record=True) as warned,
        _levels_raised(),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        warnings.simplefilter("always")
        try:
            yield
        finally:
            lines = [*map(str, (warning.message for warning in warned)), *said.getvalue().splitlines()]
            for line in filter(str.strip, lines):
                logger.debug("%s", line)


@contextlib.contextmanager
def _levels_raised() -> Iterator[None]:
    """Lets the loggers of `_FAMILIES` pass nothing; their levels come back afterwards."""
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in _FAMILIES]
    loggers = [logging.getLogger(name) for name in {*names, *_FAMILIES}]
    levels = [(one, one.level) for one in loggers if one.level != logging.NOTSET or one.name in _FAMILIES]
    for one, _ in levels:
        one.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for one, level in levels:
            one.setLevel(level)
