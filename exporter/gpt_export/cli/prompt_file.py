"""`gpt-export generate --prompts`: a file of prompts, in the place of those of the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpt_export.cli.corpus_options import engine_of, engine_options, token_progress
from gpt_export.cli.errors import F
from gpt_export.cli.options import as_json, echo_json

if TYPE_CHECKING:
    from gpt_export.artifact.reading import Artifact
    from gpt_export.scoring.corpus_generate import ContinueSettings, Written
    from gpt_export.scoring.inputs import Corpus
    from gpt_export.scoring.settings import EngineSettings

_NEEDS = "needs --prompts FILE.jsonl"


def prompt_file_options(command: F) -> F:
    """Adds the options that are for a file of prompts alone."""
    command = engine_options(command)
    options = (
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
    variant: str | None,
    as_ids: bool,
    options: dict[str, Any],
    one_by_one: Mapping[str, bool],
) -> bool:
    """Whether a file of prompts was asked for, which has then been continued; its options are taken out.

    Args:
        one_by_one: options that do not go with a file, and whether they were given.

    Raises:
        UsageError: prompts are given twice, or not at all, or options that need a file without one.
    """
    file, output, field = options.pop("file"), options.pop("output"), options.pop("field")
    log_probabilities, batch = options.pop("log_probabilities"), options.pop("batch")
    resume, strict = options.pop("resume"), options.pop("strict")
    if file is None:
        _refuse_without(options, output, log_probabilities, batch, resume, strict)
        return False
    if wrong := [name for name, is_given in {**one_by_one, "--chat": options["chat"]}.items() if is_given]:
        raise click.UsageError(f"{', '.join(wrong)} is for prompts of the command line; leave it or --prompts out")
    if prompts:
        raise click.UsageError("prompts are given twice: as arguments and with --prompts; leave one out")
    if output is None:
        raise click.UsageError("--prompts needs --output OUT.jsonl, where a line of each prompt goes")
    from gpt_export.artifact.reading import Artifact
    from gpt_export.runtime.generation import GenerationConfig  # onnxruntime is slow; --help must stay instant
    from gpt_export.scoring.corpus_generate import BATCH, ContinueSettings, failed_path
    from gpt_export.scoring.inputs import open_prompts

    engine = engine_of(options)
    opened = Artifact.open(artifact)
    corpus = open_prompts(file, field)
    settings = ContinueSettings(
        variant=opened.variant_name(variant),
        config=GenerationConfig(**options),
        as_ids=as_ids,
        log_probabilities=log_probabilities,
        batch=batch or BATCH,
    )
    written = _generate(opened, corpus, output, settings, engine, resume=resume, strict=strict)
    told = {"output": str(output), "lines": written.lines, "failed": written.failed, "tokens": written.tokens}
    text = f"{output} has {written.lines:,} lines with {written.tokens:,} new tokens"
    text += f"; {written.failed:,} failed, see {failed_path(output)}" if written.failed else ""
    echo_json(told) if as_json() else click.echo(text)
    return True


def _generate(
    opened: Artifact, corpus: Corpus, output: Path, settings: ContinueSettings, engine: EngineSettings, **how: bool
) -> Written:
    from gpt_export.scoring.corpus_generate import generate_into

    with token_progress() as on_progress:
        return generate_into(
            opened, corpus, output, settings, engine, total_bytes=corpus.size_bytes, on_progress=on_progress, **how
        )


def _refuse_without(
    options: dict[str, Any],
    output: Path | None,
    log_probabilities: bool,
    batch: int | None,
    resume: bool,
    strict: bool,
) -> None:
    """Refuses what is for a file of prompts alone, and takes the engine's options out."""
    engine = engine_of(options)
    given = {
        "--output": output is not None,
        "--log-probabilities": log_probabilities,
        "--batch": batch is not None,
        "--resume": resume,
        "--strict": strict,
        "--engine": engine.engine != "local",
        "--workers": engine.workers is not None,
        "--prepack": engine.prepack is not None,
    }
    if wrong := [name for name, is_given in given.items() if is_given]:
        raise click.UsageError(f"{', '.join(wrong)} {_NEEDS}")
