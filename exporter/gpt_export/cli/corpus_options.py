"""Options of the commands that work through a corpus: who does the work, and where results go."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from gpt_export.cli.errors import F

if TYPE_CHECKING:
    from gpt_export.scoring.progress import OnProgress
    from gpt_export.scoring.settings import EngineSettings

THREADS = 2
"""Which of the options below says the threads."""


def engine_options(command: F, *, threads: bool = True) -> F:
    """Adds the options that say who does the work; `threads` where the command has no such option of its own."""
    options = (
        click.option(
            "--engine",
            type=click.Choice(["local", "ray"]),
            default="local",
            show_default=True,
            help="Worker processes of this machine, or Ray's actors on one or many.",
        ),
        click.option("--workers", type=click.IntRange(1), metavar="N", help="How many.  [default: one a core]"),
        click.option(
            "--threads", type=click.IntRange(1), metavar="N", help="Of each worker.  [default: the cores divided]"
        ),
        click.option(
            "--prepack/--no-prepack",
            default=None,
            help="Give each worker a rearranged copy of the weights, which is faster; without, workers share the "
            "mapped file.  [default: with, where the copies fit into a quarter of the free memory]",
        ),
        click.option("--ray-address", metavar="A", help="Of a running cluster.  [default: start one here]"),
        click.option("--resume", is_flag=True, help="Go on with the run that was begun there."),
        click.option("--strict", is_flag=True, help="End the run at the first document that fails."),
    )
    for number, option in reversed(list(enumerate(options))):
        if threads or number != THREADS:
            command = option(command)
    return command


def engine_of(options: dict[str, Any]) -> EngineSettings:
    """The engine's settings, taken out of the options."""
    from gpt_export.scoring.settings import EngineSettings

    return EngineSettings(
        engine=options.pop("engine"),
        workers=options.pop("workers"),
        threads=options.pop("threads"),
        prepack=options.pop("prepack"),
        address=options.pop("ray_address"),
    )


@contextlib.contextmanager
def token_progress() -> Iterator[OnProgress]:
    """An `OnProgress` that shows a bar with tokens a second and what is left; nothing when stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from gpt_export.scoring.progress import Progress as Known
    from gpt_export.scoring.progress import ignore_progress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield ignore_progress
        return
    text = "{task.fields[documents]} documents, {task.fields[rate]} tokens/s, {task.fields[left]}"
    with Progress(BarColumn(), TextColumn(text), TimeElapsedColumn(), console=console) as display:
        task = display.add_task("", total=None, documents=0, rate="-", left="starting")

        def on_progress(known: Known) -> None:
            fraction = known.fraction
            display.update(
                task,
                total=None if fraction is None else 1.0,
                completed=fraction or 0.0,
                documents=f"{known.documents:,}" + (f" ({known.failed} failed)" if known.failed else ""),
                rate=f"{known.rate:,.0f}",
                left=_left(known.seconds_left),
            )

        yield on_progress


def _left(seconds: float | None) -> str:
    if seconds is None:
        return "how much is left is not known"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d} left"
