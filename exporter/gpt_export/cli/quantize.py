"""`gpt-export quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gpt_export.artifact.staging import check_output
from gpt_export.cli.completion import complete_precisions
from gpt_export.cli.display import progress
from gpt_export.cli.errors import RunOptions, run_options
from gpt_export.cli.options import (
    ARTIFACTS,
    OUTPUT,
    calibration_option,
    case_options,
    echo_result,
    gate_option,
    kv_cache_option,
    names_in,
)
from gpt_export.cli.report_page import html_option, refuse_inside


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--precision",
    "precisions",
    required=True,
    metavar="NAMES",
    shell_complete=complete_precisions,
    help="Variants to write side by side, with commas: int4, int8, fp16; fp32 is taken along if it is named.",
)
@kv_cache_option
@calibration_option
@click.option("--output", type=OUTPUT, metavar="FOLDER", help="[default: artifacts/NAME- and the precisions]")
@click.option("--force", is_flag=True, help="Replace an artifact that is there.")
@gate_option
@html_option
@case_options
@run_options
def quantize(artifact: Path, precisions: str, output: Path | None, html: Path | None, **options: Any) -> None:
    """Make small files of a published fp32 ARTIFACT, without its checkpoint.

    The fp32 file is read and verified, never changed. What is written is compared with it, as an export is with its
    source.
    """
    names = names_in(precisions)
    target = output or ARTIFACTS / "-".join([artifact.resolve().name, *names])
    run = click.get_current_context().ensure_object(RunOptions)
    run.publishes = True
    run.watch(target)
    if html:
        refuse_inside(html, target)
    from gpt_export.artifact.reading import Artifact  # as PyTorch, numpy need not be loaded for --help

    Artifact.open(artifact).variant_path("fp32")
    check_output(target, replace=options["force"])
    with progress() as on_stage:
        on_stage("load PyTorch")
        from gpt_export.cli.requantizing import requantize  # torch is slow to import; --help must stay instant

        result = requantize(artifact, target, names, html=html, on_stage=on_stage, **options)
    echo_result(*result)
