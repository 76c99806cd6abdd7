"""`gpt-export validate`."""

from __future__ import annotations

from pathlib import Path

import click

from exporter.cli.errors import run_options
from exporter.cli.options import case_options, config_option, echo_result


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--against", metavar="SOURCE", help="What to compare with.  [default: the source that the manifest names]"
)
@config_option
@case_options
@run_options
def validate(artifact: Path, against: str | None, cases: str, texts: tuple[str, ...], config_file: Path | None) -> None:
    """Compare a published ARTIFACT with its source once more.

    Hashes are verified first. The source is made again where the manifest suffices for that (a known name and its
    seed); for any other, name it with --against.
    """
    from exporter.cli.display import progress  # torch is slow to import; --help must stay instant
    from exporter.cli.report_text import report_lines
    from exporter.revalidate import revalidate

    with progress() as on_stage:
        report = revalidate(
            artifact, against=against, cases=cases, texts=texts or None, config_file=config_file, on_stage=on_stage
        )
    echo_result(report.to_dict(), "\n".join([f"Passed: {artifact}", *report_lines(report)]))
