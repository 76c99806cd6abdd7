"""Progress on stderr while the library works; nothing when stderr is no terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from gpt_export.progress import OnStage, ignore


@contextlib.contextmanager
def progress() -> Iterator[OnStage]:
    """An `OnStage` that shows the current stage with a clock, and each finished one with the time it took."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield ignore
        return
    columns = (SpinnerColumn(finished_text="[green]✓"), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as display:
        current: list[TaskID] = []

        def finish() -> None:
            if current:
                display.update(current.pop(), completed=1)

        def on_stage(stage: str) -> None:
            finish()
            current.append(display.add_task(stage, total=1))

        yield on_stage
        finish()
