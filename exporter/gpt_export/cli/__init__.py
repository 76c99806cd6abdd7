"""The command line: one command a file, each a few lines around the library."""

from __future__ import annotations

import click

from gpt_export.cli.bench import bench
from gpt_export.cli.doctor import doctor
from gpt_export.cli.errors import ErrorHandlingGroup
from gpt_export.cli.generate import generate
from gpt_export.cli.inspect import inspect
from gpt_export.cli.lint import lint
from gpt_export.cli.onnx import onnx
from gpt_export.cli.output import name_output
from gpt_export.cli.package import package
from gpt_export.cli.quantize import quantize
from gpt_export.cli.score import score
from gpt_export.cli.serve import serve
from gpt_export.cli.streams import occupy_streams
from gpt_export.cli.torchscript import torchscript
from gpt_export.cli.validate import validate
from gpt_export.version import __version__


@click.group(cls=ErrorHandlingGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gpt-export")
def cli() -> None:
    """Export GPTs to ONNX and TorchScript, and know that they are the same model.

    Exit codes: 0 done; 1 a named failure; 2 usage; 3 outputs are not the model's; 130 interrupted.
    """


for command in (onnx, torchscript, quantize, validate, inspect, lint, generate, score, package, serve, bench, doctor):
    cli.add_command(command)


def main() -> None:
    """Entry point of the console script."""
    occupy_streams()
    name_output()  # a model's text may hold what the terminal's encoding does not
    cli()
