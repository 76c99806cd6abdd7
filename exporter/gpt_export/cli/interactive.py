"""`gpt-export generate --interactive`: a text that grows line by line."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import click

from gpt_export.errors import ContextError, InputError, TextError
from gpt_export.runtime.conversation import Conversation
from gpt_export.runtime.generation import GenerationConfig
from gpt_export.runtime.session import Session

PROMPT = "> "


def converse(
    artifact: Path, first: str, config: GenerationConfig, *, variant: str | None, as_ids: bool, threads: int | None
) -> None:
    """Reads lines and answers each, until the end of input. What is typed is appended to the text as it is.

    Args:
        first: what is answered before the first line is read; empty for nothing.

    Raises:
        ArtifactError, InputError: the artifact cannot be opened, or a setting is out of range.
    """
    session = Session.open(artifact, variant=variant, threads=threads)
    tokenizer = None if as_ids else session.tokenizer
    if tokenizer is None and not as_ids:
        raise InputError(f'{artifact} has no tokenizer, it is for ids alone; pass ids, such as "1 2 3", with --ids')
    conversation = Conversation(session, tokenizer, config)
    with contextlib.suppress(ImportError):  # line editing and the history of the arrow keys, where there is one
        import readline  # noqa: F401
    _hint(f"{session!r}")
    _hint("An empty line goes on, Ctrl-C stops an answer, Ctrl-D ends.")
    if first:
        click.secho(first, dim=True, nl=False)
        _answer(conversation, first)
    while (line := _line()) is not None:
        _answer(conversation, line)


def _line() -> str | None:
    """The next line; None at the end of input. Ctrl-C clears the line that is being typed."""
    while True:
        try:
            return input(PROMPT if sys.stdin.isatty() else "")
        except EOFError:
            click.echo("", err=True)
            return None
        except KeyboardInterrupt:
            _hint("\nCtrl-D ends.")


def _answer(conversation: Conversation, line: str) -> None:
    begun, count = time.perf_counter(), 0
    with _stopped_by_ctrl_c() as stopped:
        try:
            for piece in conversation.answer(line, stopped=lambda: bool(stopped)):
                click.echo(piece, nl=False)
                count += 1
        except (InputError, TextError) as error:
            _hint(str(error))
            return
        except ContextError as error:
            click.echo("")
            _hint(f"{error}: what you say next begins a new text.")
            conversation.restart()
            return
    click.echo("")
    seconds = time.perf_counter() - begun
    rate = f"{count / seconds:{',.0f' if count >= 100 * seconds else '.3g'}}"
    _hint(f"{rate} pieces a second, room for {max(0, conversation.room)} more tokens")


@contextlib.contextmanager
def _stopped_by_ctrl_c() -> Iterator[list[int]]:
    """A list that gets an entry when Ctrl-C is pressed, not an exception that leaves a step half done."""
    pressed: list[int] = []

    def press(number: int, _frame: FrameType | None) -> None:
        pressed.append(number)

    before = signal.signal(signal.SIGINT, press)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _hint(text: str) -> None:
    click.secho(text, dim=True, err=True)
