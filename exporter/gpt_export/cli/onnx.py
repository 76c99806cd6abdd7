"""`gpt-export onnx`."""

from __future__ import annotations

from typing import Any

import click

from gpt_export.cli.completion import complete_precisions, complete_source
from gpt_export.cli.display import progress
from gpt_export.cli.errors import run_options
from gpt_export.cli.options import calibration_option, echo_result, export_options, kv_cache_option
from gpt_export.graph.opsets import DEFAULT_OPSET, OPSETS
from gpt_export.sources.hub import cached_snapshot


@click.command()
@click.argument("source", default="dummy-124m", shell_complete=complete_source)
@click.option(
    "--opset",
    type=click.IntRange(OPSETS[0], OPSETS[-1]),
    default=DEFAULT_OPSET,
    show_default=True,
    help="Version of the standard operators.",
)
@click.option(
    "--no-cache", "cached", flag_value=False, default=True, help="Export ids to logits, without past and present."
)
@click.option(
    "--profile",
    type=click.Choice(["portable", "ort"]),
    help="Operators: standard ones alone, or onnxruntime's fused ones as well.  [default: ort with a cache]",
)
@click.option(
    "--precision",
    "precisions",
    default="fp32",
    show_default=True,
    metavar="NAMES",
    shell_complete=complete_precisions,
    help="Variants to write side by side, with commas: fp32, fp16 (for GPUs), int8, int4.",
)
@kv_cache_option
@calibration_option
@click.option(
    "--road",
    type=click.Choice(["auto", "script", "export"]),
    default="auto",
    show_default=True,
    help="How a module becomes a graph: by torch.jit.script, by torch.export, or by the first that takes it.",
)
@click.option("--torchscript", is_flag=True, default=None, help="Write model.pt for a checkpoint too.")
@click.option("--single-file", is_flag=True, help="Keep the weights in model.onnx; below 2 GB.")
@export_options()
@run_options
def onnx(source: str, **options: Any) -> None:
    """Export SOURCE to a validated ONNX artifact.

    SOURCE is package.module:factory, a class or function of yours that gives a torch.nn.Module from int64 ids (batch,
    sequence) to scores, on --weights of your own; a checkpoint (of the book's code, nanoGPT, or a Hugging Face folder);
    or a known name (dummy-124m, gpt2-124m, gpt2-355m, gpt2-774m, gpt2-1558m: these sizes with seeded random weights).
    """
    cached_snapshot(source)  # a name of the hub that is not here is answered at once
    with progress() as on_stage:
        on_stage("load PyTorch")
        from gpt_export.cli.publish import publish  # torch is slow to import; --help must stay instant

        result = publish(source, on_stage=on_stage, **options)
    echo_result(*result)
