"""`gpt-export onnx`."""

from __future__ import annotations

from typing import Any

import click

from exporter.cli.errors import run_options
from exporter.cli.options import export_options
from exporter.opsets import DEFAULT_OPSET, OPSETS


@click.command()
@click.argument("source", default="dummy-124m")
@click.option(
    "--opset",
    type=click.IntRange(OPSETS[0], OPSETS[-1]),
    default=DEFAULT_OPSET,
    show_default=True,
    help="Version of the standard operators.",
)
@export_options
@run_options
def onnx(source: str, **options: Any) -> None:
    """Export SOURCE to a validated ONNX artifact.

    SOURCE is a known name (default dummy-124m) or package.module:factory, a callable that returns a torch.nn.Module
    from int64 (batch, sequence) to float32 logits.
    """
    from exporter.cli.publish import publish  # torch is slow to import; --help must stay instant

    publish(source, **options)
