"""How the library tells what it is doing; the command line turns it into a display."""

from __future__ import annotations

from collections.abc import Callable

OnStage = Callable[[str], None]
"""Called with a stage's name when the stage begins."""


def ignore(stage: str) -> None:
    """The `OnStage` that shows nothing."""
