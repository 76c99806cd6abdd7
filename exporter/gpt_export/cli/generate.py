"""`gpt-export generate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpt_export.cli.errors import run_options
from gpt_export.cli.options import as_json, echo_json
from gpt_export.cli.prompt_file import continue_file, prompt_file_options

if TYPE_CHECKING:
    from gpt_export.runtime.generation import Generation


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.argument("prompts", nargs=-1, metavar="PROMPT...")
@click.option("--prompts", "file", metavar="FILE.jsonl", help="Continue every line of a file instead; see --output.")
@click.option(
    "--max-new-tokens",
    type=click.IntRange(0),
    help="Tokens a prompt gets.  [default: 50, or what the context has room for]",
)
@click.option("--temperature", type=float, default=0.0, show_default=True, help="0 takes the likeliest token.")
@click.option("--top-k", type=int, help="Draw from the K likeliest tokens.  [default: all]")
@click.option("--top-p", type=float, help="Draw from the likeliest tokens that hold P of the probability.")
@click.option("--seed", type=click.IntRange(0), help="Seed of the draws.  [default: another each time]")
@click.option(
    "--stop",
    "stops",
    multiple=True,
    metavar="TEXT",
    help="Stop before this text or special token; with --ids, at this id. Repeatable.",
)
@click.option("--ignore-end-of-text", is_flag=True, help="Go on after the tokenizer's end-of-text token.")
@click.option("--special", is_flag=True, help="Special tokens that a prompt spells are tokens, not text.")
@click.option("--chat", is_flag=True, help="Each PROMPT is what a user says: put the model's chat template around it.")
@click.option("--variant", default="fp32", show_default=True, help="Which of the artifact's graphs.")
@click.option("--ids", "as_ids", is_flag=True, help='Prompts are token ids, such as "15496 11"; so is what comes.')
@prompt_file_options
@run_options
def generate(artifact: Path, prompts: tuple[str, ...], variant: str, as_ids: bool, **settings: Any) -> None:
    """Continue each PROMPT with the model in ARTIFACT.

    One prompt is printed as it grows; several run as one batch and are printed at the end, an empty line between them.
    A continuation ends with its length, at a --stop, or at the tokenizer's end-of-text token; with --ids, only --stop
    ends it early.

    With --prompts, JSON lines are continued on worker processes or Ray, a line of --output for each.
    """
    if continue_file(artifact, prompts, variant, as_ids, settings):
        return
    from gpt_export.runtime.generation import (  # onnxruntime is slow; --help must stay instant
        GenerationConfig,
        open_generation,
    )

    generation = open_generation(artifact, prompts, GenerationConfig(**settings), variant=variant, as_ids=as_ids)
    if as_json():
        for _ in generation:
            pass
        echo_json({"continuations": [continuation.to_dict() for continuation in generation.continuations]})
    else:
        _print(generation)


def _print(generation: Generation) -> None:
    told = [continuation.prompt for continuation in generation.continuations]
    alone = len(told) == 1
    if alone:
        click.echo(told[0], nl=False)
    try:
        for i, piece in generation:
            told[i] += piece
            if alone:
                click.echo(piece, nl=False)
    finally:  # a full context or Ctrl-C does not take away what is there
        click.echo("" if alone else "\n\n".join(told))
