"""How the library tells what it is doing; the command line turns it into a display."""

from __future__ import annotations

from collections.abc import Callable

OnStage = Callable[[str], None]
"""Called with a stage's name when the stage begins. If it has a method `part`, that is called as an `OnPart`."""
OnPart = Callable[[int, int, str], None]
"""Called with how many parts of the current stage are done, how many there are, and what a part is, such as `case`."""


def ignore(stage: str) -> None:
    """The `OnStage` that shows nothing."""


def parts_of(on_stage: OnStage) -> OnPart:
    """What to tell the parts of a stage to: the method `part` of `on_stage`, or nobody."""
    told: OnPart = getattr(on_stage, "part", ignore_part)
    return told


def ignore_part(done: int, total: int, what: str) -> None:
    """The `OnPart` that shows nothing."""
