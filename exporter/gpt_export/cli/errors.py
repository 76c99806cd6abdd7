"""Failures to one sentence on stderr and an exit code; with `--json`, to JSON on stdout as well."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

import click
from gpt_export_models.errors import GptExportError
from gpt_export_models.problems import printable

from gpt_export.requirements import explain_missing, missing_requirements

F = TypeVar("F", bound=Callable[..., Any])

INTERRUPTED = 130
ENDING = ("SIGTERM", "SIGHUP", "SIGXCPU", "SIGUSR1", "SIGUSR2")
"""Signals by which a system, a terminal that closes, or a batch scheduler whose time is up asks a command to end. Each
would end a process at once, and what it has staged would stay. SIGQUIT is left: it ends what does not listen."""


@dataclass(slots=True)
class RunOptions:
    """Options of any command that change how its end is told."""

    debug: bool = False
    as_json: bool = False
    publishes: bool = False
    """Whether the command publishes an artifact, so that a failure should say that it did not."""

    target: Path | None = None
    """Where the command publishes, once that is known."""
    before: tuple[int, int] | None = None
    """What lay there then."""

    def watch(self, target: Path) -> None:
        """Notes what lies at the place of publication, before anything is published there."""
        self.target, self.before = target.absolute(), _identity(target)

    def has_published(self) -> bool:
        """Whether something new lies at the place of publication."""
        return self.target is not None and _identity(self.target) not in (None, self.before)

    def consequence(self) -> str:
        """What follows from a failure, for the end of its message: what the place of publication says happened."""
        if self.has_published():
            return f"; {self.target} was published before"
        return "; nothing was published" if self.publishes else ""


def run_options(command: F) -> F:
    """Adds `--json` and `--debug`, which are kept in the context's `RunOptions`."""

    def keep(name: str) -> Callable[[click.Context, click.Parameter, bool], None]:
        return lambda context, _parameter, value: setattr(context.ensure_object(RunOptions), name, value)

    debug = click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=keep("debug"),
        help="Show the traceback of a failure.",
    )
    as_json = click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=keep("as_json"),
        help="Print the result as JSON, alone on stdout.",
    )
    return as_json(debug(command))


class ErrorHandlingGroup(click.Group):
    """A group whose `main` ends every failure as the exit codes promise."""

    def main(self, args: Sequence[str] | None = None, **extra: Any) -> NoReturn:  # type: ignore[override]
        """Runs the command line and exits."""
        extra.pop("standalone_mode", None)
        options = RunOptions()
        _terminate_cleanly()
        try:
            code = super().main(args, standalone_mode=False, obj=options, **extra)
            _flush()
        except click.UsageError as error:
            if not options.as_json:
                error.show()
            self._exit(options, error, error.exit_code, error.format_message(), told=True)
        except GptExportError as error:
            said = options.consequence() if options.has_published() else ""  # that nothing was, it says itself
            self._exit(options, error, error.exit_code, str(error) + said)
        except (KeyboardInterrupt, click.Abort) as error:
            self._exit(options, error, INTERRUPTED, f"interrupted{options.consequence()}")
        except BrokenPipeError:
            _close_output()
            sys.exit(1)
        except MemoryError as error:
            self._exit(options, error, 1, "the memory does not suffice; close other programs or export a smaller model")
        except OSError as error:
            what = f"{error.filename or 'a file'}: {error.strerror or error}"
            self._exit(options, error, 1, what + options.consequence())
        except ModuleNotFoundError as error:
            message = explain_missing(error, missing_requirements()) or _unexpected(error)
            self._exit(options, error, 1, message)
        except Exception as error:
            self._exit(options, error, 1, _unexpected(error))
        sys.exit(code if isinstance(code, int) else 0)

    @staticmethod
    def _exit(options: RunOptions, error: BaseException, code: int, message: str, *, told: bool = False) -> NoReturn:
        if options.debug:
            traceback.print_exception(error)
        with contextlib.suppress(OSError):  # where even that cannot be written, the exit code has to do
            if not told:
                click.echo(f"Error: {printable(message)}", err=True)
        if options.as_json:
            details: dict[str, Any] = error.details() if hasattr(error, "details") else {}
            body = {"error": {"type": type(error).__name__, "message": message, "exit_code": code}, **details}
            with contextlib.suppress(OSError):
                click.echo(json.dumps(body, indent=2, sort_keys=True))
        _close_output()
        sys.exit(code)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _close_output() -> None:
    """Lets Python end without a traceback of its own where standard output or standard error take no more."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _unexpected(error: Exception) -> str:
    return f"unexpected {type(error).__name__}: {error}; run again with --debug and report what it shows"


def _terminate_cleanly() -> None:
    """Lets `ENDING` signals unwind the stack, so that staging folders are removed; the exit code is 128 and the number.

    What is ignored stays so: nohup is a promise that the end of the terminal is not the end of the command.
    """
    ending = [signal.Signals[name] for name in ENDING if hasattr(signal, name)]

    def stop(number: int, _frame: FrameType | None) -> None:
        for other in ending:  # a terminal that closes is told twice; the second would end the first's removing
            signal.signal(other, signal.SIG_IGN)
        sys.exit(128 + number)

    try:
        for one in ending:
            if signal.getsignal(one) is signal.SIG_DFL:
                signal.signal(one, stop)
    except ValueError:  # not in the main thread
        return
