"""`gpt-export validate`."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import click

from gpt_export.cli.errors import run_options
from gpt_export.cli.options import as_json, case_options, comparison, echo_json, source_options
from gpt_export.cli.report_page import html_option, refuse_inside, write_page
from gpt_export.errors import ConfigError
from gpt_export.sources.hub import cached_snapshot


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--against", metavar="SOURCE", help="What to compare with.  [default: the source that the manifest names]"
)
@click.option(
    "--role",
    "roles",
    multiple=True,
    metavar="INPUT=ROLE",
    help="What an input or output of an .onnx file is: ids, mask, positions, types, flag or logits. Repeatable.",
)
@source_options
@case_options
@html_option
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
    **options: Any,
) -> None:
    """Compare a published ARTIFACT, or any .onnx file, with its source.

    Of an artifact the hashes are verified first, and the source is made again where the manifest suffices for that (a
    known name and its seed). For any other source, and for files that another exporter wrote, name it with --against:
    inputs, outputs and weights are then matched by name, shape and content, and what cannot be matched is said.
    """
    if against is not None:
        cached_snapshot(against)  # a name of the hub that is not here is answered at once
    from gpt_export.artifact.manifest import read_manifest
    from gpt_export.cli.display import progress  # torch is slow to import; --help must stay instant
    from gpt_export.cli.report_text import print_report
    from gpt_export.gate.settings import GateSettings
    from gpt_export.pipeline.comparison import raise_if_failed
    from gpt_export.pipeline.revalidate import revalidate, revalidate_file
    from gpt_export.report.page import report_html

    if html:
        refuse_inside(html, artifact)
    with progress() as on_stage:
        is_file = artifact.is_file() or (artifact.suffix == ".onnx" and not artifact.is_dir())
        if roles and not is_file:
            raise ConfigError(f"--role is for an .onnx file, and {artifact} says what its inputs are; leave it out")
        compare = partial(revalidate_file, roles=roles) if is_file else revalidate
        settings = GateSettings(**comparison(**options))
        with redirect_stdout(sys.stderr):  # what the user's code prints is no result of ours
            report = compare(
                artifact,
                settings,
                against=against,
                config_file=config_file,
                heads=heads,
                weights=weights,
                adapter=adapter,
                base=base,
                lora_alpha=lora_alpha,
                on_stage=on_stage,
            )
    if html:
        manifest = None if is_file else read_manifest(artifact)
        write_page(html, report_html(report, manifest, name=artifact.name))
    if not as_json():
        print_report(report, str(artifact))
    raise_if_failed(report, f"do not use {artifact}")
    if as_json():
        echo_json(report.to_dict())
