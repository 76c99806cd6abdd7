"""`gpt-export lint`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gpt_export.cli.errors import run_options
from gpt_export.linting.settings import CONSUMERS


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--consumer",
    "consumers",
    multiple=True,
    type=click.Choice(CONSUMERS),
    help="Hold the file to this loader's contract; repeatable.  [default: all, as far as they apply]",
)
@click.option("--target-ort", metavar="VERSION", help="The oldest onnxruntime that must load it, such as 1.17.")
@click.option("--ignore", multiple=True, metavar="CODE", help="A rule to leave out; repeatable.")
@click.option("--sarif", metavar="FILE", help="Write SARIF 2.1.0 for code scanning; - for stdout.")
@run_options
def lint(path: Path, sarif: str | None, **options: Any) -> None:
    """Look for what is wrong with an .onnx file, or with every variant of an artifact, without running it.

    Exits 1 when there is an error-level finding, 0 otherwise. The rules are listed in docs/lint.md.
    """
    from gpt_export.cli.lint_output import lint_and_tell  # onnx is slow to import; --help must stay instant

    click.get_current_context().exit(lint_and_tell(path, sarif, **options))
