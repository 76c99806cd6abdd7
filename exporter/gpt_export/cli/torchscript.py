"""`gpt-export torchscript`."""

from __future__ import annotations

from typing import Any

import click

from gpt_export.cli.errors import run_options
from gpt_export.cli.options import export_options
from gpt_export.sources.hub import cached_snapshot


@click.command()
@click.argument("source", default="dummy-124m")
@export_options
@run_options
def torchscript(source: str, **options: Any) -> None:
    """Export SOURCE to a validated TorchScript file alone.

    The default output is artifacts/NAME-torchscript. SOURCE is as in `gpt-export onnx`, which writes both.
    """
    cached_snapshot(source)  # a name of the hub that is not here is answered at once
    from gpt_export.cli.publish import publish  # torch is slow to import; --help must stay instant

    publish(source, suffix="-torchscript", onnx=False, **options)
