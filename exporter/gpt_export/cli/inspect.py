"""`gpt-export inspect`."""

from __future__ import annotations

from pathlib import Path

import click

from gpt_export.cli.errors import run_options
from gpt_export.cli.options import echo_result


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@run_options
def inspect(path: Path) -> None:
    """Show what an artifact, or any .onnx file, holds: signature, opset, operators, sizes, hashes.

    Nothing is run. Of an artifact the manifest's digests are verified, the files themselves by `gpt-export validate`.
    """
    from gpt_export.artifact.inspection import inspect_path  # onnx is slow to import; --help must stay instant
    from gpt_export.artifact.inspection_text import inspection_text

    found = inspect_path(path)
    from gpt_export.cli.publish_text import fitted

    echo_result(found, "\n".join(map(fitted, inspection_text(found).splitlines())))
