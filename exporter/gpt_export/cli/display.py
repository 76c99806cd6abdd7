"""Progress on stderr while the library works: a live line on a terminal, a line for each finished stage elsewhere."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

WORDS = {
    "load PyTorch": "loading PyTorch",
    "open the file": "opening what is compared",
    "read the source": "reading the source",
    "graph": "making the graph",
    "passes": "simplifying the graph",
    "derive the cache": "finding the key-value cache",
    "scale the cache": "scaling the cache by what keys and values are",
    "calibrate int4": "calibrating int4 on the text",
    "compare weights": "comparing weights with the source",
    "run eager": "running the model in PyTorch",
    "run the graph": "running the fp32 graph",
    "trace layers": "following the layers",
    "verify hashes": "checking hashes",
    "match inputs and outputs": "matching inputs and outputs",
    "match weights": "matching weights",
    "measure the memory's bandwidth": "measuring the memory's bandwidth",
    "publish": "publishing",
}
"""What stages are called for a person, where it is not their name."""
PATTERNS: tuple[tuple[str, str], ...] = (
    (r"run onnx beside the graph", "comparing fp32 with the fp32 graph"),
    (r"run (.+) beside the graph", r"comparing \1 with the fp32 graph"),
    (r"run onnx", "comparing fp32 with PyTorch"),
    (r"run torchscript", "comparing TorchScript with PyTorch"),
    (r"run (.+)", r"comparing \1 with PyTorch"),
    (r"write (.+)", r"writing \1"),
    (r"measure (.+)", r"measuring \1"),
    (r"package for (.+)", r"packaging for \1"),
)
TOLD_S = 2.0
"""Parts are shown of stages that take longer than this."""


def in_words(stage: str) -> str:
    """What a stage is called for a person."""
    if stage in WORDS:
        return WORDS[stage]
    for pattern, words in PATTERNS:
        if found := re.fullmatch(pattern, stage):
            return found.expand(words)
    return stage


class Stages:
    """What both displays have in common: the clock, and the current stage."""

    def __init__(self) -> None:
        self._begun = self._stage_begun = time.perf_counter()
        self._stage: str | None = None
        self._count = 0

    def __call__(self, stage: str) -> None:
        """Begins a stage, which ends the one before."""
        self._finish(failed=False)
        self._stage, self._stage_begun = in_words(stage), time.perf_counter()
        self._count += 1
        self.begin(self._stage)

    def part(self, done: int, total: int, what: str) -> None:
        """So many parts of the current stage are done, of so many."""
        seconds = time.perf_counter() - self._stage_begun
        if self._stage is not None and seconds > TOLD_S and 0 < done <= total:
            left = seconds * (total - done) / done
            self.far(f"{what} {done} of {total}, {done / total:.0%}, {clock(left)} left")

    def end(self, *, failed: bool) -> None:
        """Ends the last stage, and says what all of them took."""
        self._finish(failed=failed)
        if self._count > 1:
            self.total(f"{'stopped' if failed else 'done'} after {clock(time.perf_counter() - self._begun)}")

    def _finish(self, *, failed: bool) -> None:
        if self._stage is not None:
            self.finished(self._stage, time.perf_counter() - self._stage_begun, failed)
        self._stage = None

    @contextlib.contextmanager
    def showing(self) -> Iterator[None]:
        """Keeps the display on the screen."""
        yield

    def begin(self, stage: str) -> None:
        """A stage begins."""

    def far(self, text: str) -> None:
        """The current stage is so far."""

    def finished(self, stage: str, seconds: float, failed: bool) -> None:
        """A stage has ended."""
        raise NotImplementedError

    def total(self, text: str) -> None:
        """All stages have ended."""
        raise NotImplementedError


class WrittenStages(Stages):
    """A line for each stage that has ended, as a pipe or the log of a CI keeps it."""

    def finished(self, stage: str, seconds: float, failed: bool) -> None:
        click.echo(f"{'✗' if failed else '✓'} {stage}  {clock(seconds)}", err=True)

    def total(self, text: str) -> None:
        click.echo(f"  {text}", err=True)


class LiveStages(Stages):
    """A spinner on the current stage, with a clock; finished stages stay above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        super().__init__()
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[far]}"),
        )
        self._display: Progress = Progress(*columns, console=Console(stderr=True, highlight=False), transient=True)
        self._task: TaskID | None = None

    @contextlib.contextmanager
    def showing(self) -> Iterator[None]:
        with self._display:
            yield

    def begin(self, stage: str) -> None:
        self._task = self._display.add_task(stage, total=None, far="")

    def far(self, text: str) -> None:
        if self._task is not None:
            self._display.update(self._task, far=text)

    def finished(self, stage: str, seconds: float, failed: bool) -> None:
        if self._task is not None:
            self._display.remove_task(self._task)
            self._task = None
        mark = "[red]✗[/red]" if failed else "[green]✓[/green]"
        self._display.console.print(f"{mark} {stage}  [dim]{clock(seconds)}[/dim]")

    def total(self, text: str) -> None:
        self._display.console.print(f"  [dim]{text}[/dim]")


@contextlib.contextmanager
def progress() -> Iterator[Stages]:
    """An `OnStage` that shows the current stage, how far it is, and what each finished one took.

    A stage that an exception leaves is marked as the one that failed.
    """
    shown = LiveStages() if sys.stderr.isatty() else WrittenStages()
    with shown.showing():
        try:
            yield shown
        except BaseException as error:
            # an exit that is no failure, such as that of `--help`, marks nothing
            shown.end(failed=not isinstance(error, click.exceptions.Exit))
            raise
        shown.end(failed=False)


def clock(seconds: float) -> str:
    """Seconds for a person: `0.4 s`, `12 s`, `2:05`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60}:{whole % 60:02d}"
