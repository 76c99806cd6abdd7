"""`--html FILE`: the parity report as a page, of a run that passed or failed."""

from __future__ import annotations

from pathlib import Path

import click

from gpt_export.artifact.staging import write_whole
from gpt_export.cli.errors import F
from gpt_export.errors import OutputError


def html_option(command: F) -> F:
    """Adds `--html FILE`; a file that could not be written is refused before the work begins."""
    return click.option(
        "--html",
        type=click.Path(path_type=Path, dir_okay=False, writable=True),
        metavar="FILE",
        callback=_in_a_folder,
        help="Write the comparison as a page to look at, also when it fails.",
    )(command)


def write_page(path: Path, page: str) -> None:
    """Writes the page and says so on stderr.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        write_whole(path, page)
    except OSError as error:
        raise OutputError(f"the report cannot be written to {path}: {error.strerror or error}") from error
    click.echo(f"Report: {path}", err=True)


def refuse_inside(page: Path, artifact: Path) -> None:
    """Refuses a page in the artifact's folder, where it would replace or join files that the manifest has hashes of.

    Raises:
        click.BadParameter: `page` lies in `artifact`.
    """
    if artifact.resolve() in page.resolve().parents:
        raise click.BadParameter(f"{page} lies in the artifact {artifact}; choose another place", param_hint="--html")


def _in_a_folder(_context: click.Context, _parameter: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and not value.parent.is_dir():
        raise click.BadParameter(f"{value.parent} is not a folder; make it first")
    if value is not None and value.exists() and not value.is_file():
        raise click.BadParameter(f"{value} is a pipe or a device; name a file")
    return value
