"""`gpt-export generate --prompts`: a file of prompts, in the place of those of the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpt_export.cli.corpus_options import engine_of, engine_options, token_progress
from gpt_export.cli.errors import F
from gpt_export.cli.options import as_json, echo_json

if TYPE_CHECKING:
    from gpt_export.scoring.corpus_generate import Written
    from gpt_export.scoring.inputs import Corpus
    from gpt_export.scoring.settings import EngineSettings

_NEEDS = "needs --prompts FILE.jsonl"


def prompt_file_options(command: F) -> F:
    """Adds the options that are for a file of prompts alone."""
    command = engine_options(command, threads=False)
    options = (
        click.option("--prompts", "file", metavar="FILE.jsonl", help="Continue every line of a file; see --output."),
        click.option(
            "--output", type=click.Path(path_type=Path), metavar="OUT.jsonl", help="Of --prompts: the results."
        ),
        click.option("--field", default="prompt", show_default=True, help="Of --prompts: where a line's prompt is."),
        click.option("--log-probabilities", is_flag=True, help="Of --prompts: tell them of every new token."),
        click.option("--batch", type=click.IntRange(1), metavar="N", help="Of --prompts: side by side.  [default: 32]"),
    )
    for option in reversed(options):
        command = option(command)
    return command


def continue_file(
    artifact: Path,
    prompts: tuple[str, ...],
    options: dict[str, Any],
    alone: Mapping[str, bool],
    *,
    variant: str | None,
    as_ids: bool,
    threads: int | None,
) -> bool:
    """Whether a file of prompts was asked for, which has then been continued; its options are taken out.

    Args:
        alone: options that are for prompts of the command line, and whether they were given.

    Raises:
        UsageError: prompts are given twice, or options do not go together.
    """
    file, output, field = options.pop("file"), options.pop("output"), options.pop("field")
    log_probabilities, batch = options.pop("log_probabilities"), options.pop("batch")
    how = {name: options.pop(name) for name in ("resume", "strict")}
    engine = engine_of(options | {"threads": threads if file else None})
    for name in ("engine", "workers", "prepack", "ray_address"):
        del options[name]
    if file is None:
        given = {"--output": output is not None, "--log-probabilities": log_probabilities, "--batch": batch is not None}
        _refuse_without(given | {f"--{name}": said for name, said in how.items()}, engine)
        return False
    _refuse_with(prompts, alone, output)
    from gpt_export.runtime.generation import GenerationConfig  # onnxruntime is slow; --help must stay instant
    from gpt_export.scoring.corpus_generate import BATCH, failed_path
    from gpt_export.scoring.inputs import open_prompts

    config = GenerationConfig(**{item.name: options[item.name] for item in dataclasses.fields(GenerationConfig)})
    said = {"config": config, "as_ids": as_ids, "log_probabilities": log_probabilities, "batch": batch or BATCH}
    written = _generate(artifact, variant, open_prompts(file, field), output, said, engine, **how)
    told = {"output": str(output), "lines": written.lines, "failed": written.failed, "tokens": written.tokens}
    text = f"{output} has {written.lines:,} lines with {written.tokens:,} new tokens"
    text += f"; {written.failed:,} failed, see {failed_path(output)}" if written.failed else ""
    echo_json(told) if as_json() else click.echo(text)
    return True


def _generate(
    artifact: Path,
    variant: str | None,
    corpus: Corpus,
    output: Path,
    said: dict[str, Any],
    engine: EngineSettings,
    **how: bool,
) -> Written:
    from gpt_export.artifact.reading import Artifact
    from gpt_export.scoring.corpus_generate import ContinueSettings, generate_into

    opened = Artifact.open(artifact)
    settings = ContinueSettings(variant=opened.variant_name(variant), **said)
    with token_progress() as on_progress:
        return generate_into(
            opened, corpus, output, settings, engine, total_bytes=corpus.size_bytes, on_progress=on_progress, **how
        )


def _refuse_with(prompts: tuple[str, ...], alone: Mapping[str, bool], output: Path | None) -> None:
    if prompts:
        raise click.UsageError("prompts are given twice: as arguments and with --prompts; leave one out")
    if wrong := [name for name, is_given in alone.items() if is_given]:
        raise click.UsageError(f"{', '.join(wrong)} is for prompts of the command line; leave --prompts or it out")
    if output is None:
        raise click.UsageError("--prompts needs --output OUT.jsonl, where a line of each prompt goes")


def _refuse_without(given: Mapping[str, bool], engine: EngineSettings) -> None:
    """Refuses what is for a file of prompts alone."""
    more = {
        "--engine": engine.engine != "local",
        "--workers": engine.workers is not None,
        "--prepack": engine.prepack is not None,
    }
    if wrong := [name for name, is_given in (dict(given) | more).items() if is_given]:
        raise click.UsageError(f"{', '.join(wrong)} {_NEEDS}")
