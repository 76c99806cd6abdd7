"""`gpt-export package`."""

from __future__ import annotations

from pathlib import Path

import click

from gpt_export.cli.completion import complete_variant
from gpt_export.cli.display import progress
from gpt_export.cli.errors import RunOptions, run_options
from gpt_export.cli.options import OUTPUT, echo_result


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--target",
    type=click.Choice(["triton", "genai", "archive"]),
    required=True,
    help="A Triton model repository, a folder of one variant for onnxruntime-genai, or a reproducible tar.",
)
@click.option(
    "--variant",
    metavar="NAME",
    shell_complete=complete_variant,
    help="Which one: fp32, fp16, int8, int4.  [default: the first there is]",
)
@click.option("--output", type=OUTPUT, required=True, metavar="PATH", help="The repository, the folder, or the tar.")
@run_options
def package(artifact: Path, target: str, variant: str | None, output: Path) -> None:
    """Repackage ARTIFACT for a consumer that wants another layout. Every file is verified on the way.

    All of it appears at the output, or nothing; what is there is not replaced.
    """
    from gpt_export.targets.package import (
        package as make,
    )  # onnxruntime's world is slow to import; --help must be instant

    click.get_current_context().ensure_object(RunOptions).watch(output)
    with progress() as on_stage:
        made = make(artifact, target, output, variant=variant, on_stage=on_stage)
    found = {"package": str(made.path), "target": target, "files": list(made.files), "sha256": made.sha256}
    digest = f"\n  SHA-256 {made.sha256}" if made.sha256 else ""
    echo_result(found, f"Packaged: {made.path}{digest}\n" + "\n".join(f"  {name}" for name in made.files))
