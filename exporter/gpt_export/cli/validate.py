"""`gpt-export validate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gpt_export.cli.completion import complete_source
from gpt_export.cli.display import progress
from gpt_export.cli.errors import run_options
from gpt_export.cli.options import as_json, case_options, comparison, source_options
from gpt_export.cli.report_page import html_option, refuse_inside
from gpt_export.sources.hub import cached_snapshot


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--against",
    metavar="SOURCE",
    shell_complete=complete_source,
    help="What to compare with.  [default: the source that the manifest names]",
)
@click.option(
    "--role",
    "roles",
    multiple=True,
    metavar="INPUT=ROLE",
    help="What an input or output of an .onnx file is: ids, mask, positions, types, flag, keep or logits. Repeatable.",
)
@source_options
@case_options
@html_option
@click.option("--verbose", is_flag=True, help="Show every case, and not the failures and the worst one alone.")
@run_options
def validate(
    artifact: Path,
    against: str | None,
    config_file: Path | None,
    heads: int | None,
    weights: Path | None,
    adapter: str | None,
    base: Path | None,
    lora_alpha: float | None,
    roles: tuple[str, ...],
    html: Path | None,
    verbose: bool,
    **options: Any,
) -> None:
    """Compare a published ARTIFACT, or any .onnx file, with its source.

    Of an artifact the hashes are verified first, and the source is made again where the manifest suffices for that (a
    known name and its seed). For any other source, and for files that another exporter wrote, name it with --against:
    inputs, outputs and weights are then matched by name, shape and content, and what cannot be matched is said.
    """
    if against is not None:
        cached_snapshot(against)  # a name of the hub that is not here is answered at once
    if html:
        refuse_inside(html, artifact)
    with progress() as on_stage:
        on_stage("load PyTorch")
        from gpt_export.cli.revalidation import compared, tell  # torch is slow to import; --help must stay instant

        settings = comparison(**options)
        named = {
            "against": against,
            "config_file": config_file,
            "heads": heads,
            "weights": weights,
            "adapter": adapter,
            "base": base,
            "lora_alpha": lora_alpha,
        }
        report = compared(artifact, settings, named, roles, on_stage)
    tell(report, artifact, html=html, verbose=verbose, as_json=as_json())
