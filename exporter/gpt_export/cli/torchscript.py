"""`gpt-export torchscript`."""

from __future__ import annotations

from typing import Any

import click

from gpt_export.cli.completion import complete_source
from gpt_export.cli.display import progress
from gpt_export.cli.errors import run_options
from gpt_export.cli.options import echo_result, export_options
from gpt_export.sources.hub import cached_snapshot

SUFFIX = "-torchscript"


@click.command()
@click.argument("source", default="dummy-124m", shell_complete=complete_source)
@export_options(SUFFIX)
@run_options
def torchscript(source: str, **options: Any) -> None:
    """Export SOURCE to a validated TorchScript file alone.

    SOURCE is as in `gpt-export onnx`, which writes both.
    """
    cached_snapshot(source)  # a name of the hub that is not here is answered at once
    with progress() as on_stage:
        on_stage("load PyTorch")
        from gpt_export.cli.publish import publish  # torch is slow to import; --help must stay instant

        result = publish(source, suffix=SUFFIX, onnx=False, on_stage=on_stage, **options)
    echo_result(*result)
