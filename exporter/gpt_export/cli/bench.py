"""`gpt-export bench`."""

from __future__ import annotations

from pathlib import Path

import click

from gpt_export.cli.completion import complete_variant
from gpt_export.cli.display import progress
from gpt_export.cli.errors import run_options
from gpt_export.cli.options import as_json, echo_json, whole_numbers


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--variant",
    "variants",
    multiple=True,
    shell_complete=complete_variant,
    help="Which of the artifact's; repeatable.  [default: all]",
)
@click.option("--prefill", default="128,512,1024", show_default=True, metavar="N,N", callback=whole_numbers)
@click.option("--batch", "batches", default="1,4,16", show_default=True, metavar="N,N", callback=whole_numbers)
@click.option("--threads", type=click.IntRange(1), help="Threads within an operator.  [default: onnxruntime's choice]")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True, help="Runs of each measurement.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Draw to .svg or .html.")
@run_options
def bench(
    artifact: Path,
    variants: tuple[str, ...],
    prefill: tuple[int, ...],
    batches: tuple[int, ...],
    threads: int | None,
    repeats: int,
    plot: Path | None,
) -> None:
    """Measure how fast ARTIFACT runs on this machine.

    Prefill, decoding by batch and by context, loading, memory, and the share of what the memory's bandwidth allows.
    Each variant runs in a process of its own. Lengths beyond the model's context are cut to it.
    """
    from gpt_export.bench.plan import BenchConfig  # onnxruntime is slow to import; --help must stay instant
    from gpt_export.bench.plot import check_plot, write_plot
    from gpt_export.bench.run import benchmark
    from gpt_export.bench.table import print_benchmark

    if plot:
        check_plot(plot)
    config = BenchConfig(prefill=prefill, batches=batches, repeats=repeats, threads=threads)
    with progress() as on_stage:
        found = benchmark(artifact, variants, config, on_stage=on_stage)
    if plot:
        write_plot(found, plot)
    echo_json(found) if as_json() else print_benchmark(found)
