"""The lint command's outputs: a table, JSON, SARIF."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console

from gpt_export.artifact.staging import write_whole
from gpt_export.cli.errors import RunOptions
from gpt_export.errors import OutputError
from gpt_export.linting.report import LintReport
from gpt_export.linting.run import lint_path
from gpt_export.linting.sarif import to_sarif
from gpt_export.linting.settings import LintSettings
from gpt_export.linting.text import print_report

STDOUT = "-"
WIDTH = 120
"""Columns where stdout is no terminal."""


def lint_and_tell(
    path: Path, sarif: str | None, *, consumers: tuple[str, ...], target_ort: str | None, ignore: tuple[str, ...]
) -> int:
    """Lints `path`, tells what was found in the ways that were asked for, and returns the exit code."""
    as_json = click.get_current_context().ensure_object(RunOptions).as_json
    if as_json and sarif == STDOUT:
        raise click.UsageError("--json and --sarif - both want stdout; give --sarif a file")
    settings = LintSettings(consumers=consumers, target_ort=target_ort, ignore=frozenset(ignore))
    report = lint_path(path, settings)
    if sarif is not None:
        _write_sarif(report, sarif)
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=2, sort_keys=True))
    elif sarif != STDOUT:
        console = Console(highlight=False)
        print_report(report, console if console.is_terminal else Console(highlight=False, width=WIDTH))
    return report.exit_code


def _write_sarif(report: LintReport, target: str) -> None:
    text = json.dumps(to_sarif(report, Path.cwd()), indent=2, ensure_ascii=False)
    if target == STDOUT:
        click.echo(text)
        return
    try:
        write_whole(Path(target), f"{text}\n")
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror}; name another file for --sarif") from error
