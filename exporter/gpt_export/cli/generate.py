"""`gpt-export generate`."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpt_export.cli.errors import run_options
from gpt_export.cli.generate_options import generate_options
from gpt_export.cli.options import as_json, echo_json, read_text
from gpt_export.cli.prompt_file import continue_file, prompt_file_options

if TYPE_CHECKING:
    from gpt_export.runtime.generation import Generation

STDIN = "-"


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.argument("prompts", nargs=-1, metavar="PROMPT...")
@generate_options
@prompt_file_options
@run_options
def generate(
    artifact: Path,
    prompts: tuple[str, ...],
    prompt_file: Path | None,
    interactive: bool,
    as_ids: bool,
    samples: int,
    variant: str | None,
    threads: int | None,
    **settings: Any,
) -> None:
    """Continue each PROMPT with the model in ARTIFACT; - reads one from stdin.

    One prompt is printed as it grows; several run as one batch and are printed at the end, an empty line between them.
    A continuation ends with its length, at a --stop, or at the tokenizer's end-of-text token; with --ids, only --stop
    ends it early. Tokens a second are told on stderr.

    With --prompts, JSON lines are continued on worker processes or Ray, a line of --output for each.
    """
    alone = {"--file": prompt_file is not None, "--interactive": interactive, "--samples": samples > 1}
    alone |= {f"--{name}": settings[name] for name in ("chat", "special")}
    if continue_file(artifact, prompts, settings, alone, variant=variant, as_ids=as_ids, threads=threads):
        return
    given = [_read(prompt) for prompt in prompts]
    if prompt_file is not None:
        given.append(_without_line_end(read_text(prompt_file)))
    if interactive and (as_json() or samples > 1 or len(given) > 1 or settings["chat"]):
        raise click.UsageError("--interactive goes on from one prompt at most; leave --json, --samples and --chat out")
    if not given and not interactive:
        context = click.get_current_context()
        missing = next(param for param in context.command.params if param.name == "prompts")
        raise click.MissingParameter(ctx=context, param=missing)

    from gpt_export.runtime.generation import GenerationConfig  # onnxruntime is slow; --help must stay instant
    from gpt_export.runtime.opening import open_generation

    config = GenerationConfig(**{item.name: settings[item.name] for item in dataclasses.fields(GenerationConfig)})
    if interactive:
        from gpt_export.cli.interactive import converse

        converse(artifact, "".join(given), config, variant=variant, as_ids=as_ids, threads=threads)
        return
    repeated = [prompt for prompt in given for _ in range(samples)]
    generation = open_generation(artifact, repeated, config, variant=variant, as_ids=as_ids, threads=threads)
    if as_json():
        for _ in generation:
            pass
        echo_json({"continuations": [continuation.to_dict() for continuation in generation.continuations]})
    else:
        _print(generation)


def _read(prompt: str) -> str:
    return _without_line_end(sys.stdin.read()) if prompt == STDIN else prompt


def _without_line_end(text: str) -> str:
    return text.removesuffix("\n").removesuffix("\r")


def _print(generation: Generation) -> None:
    told = [""] * len(generation.continuations)
    prompts = [continuation.prompt for continuation in generation.continuations]
    alone = len(told) == 1
    if alone:
        click.secho(prompts[0], dim=True, nl=False)
    begun, first = time.perf_counter(), None
    try:
        for i, piece in generation:
            first = first or time.perf_counter()
            told[i] += piece
            if alone:
                click.echo(piece, nl=False)
    finally:  # a full context or Ctrl-C does not take away what is there
        rows = (click.style(prompt, dim=True) + text for prompt, text in zip(prompts, told, strict=True))
        click.echo("" if alone else "\n\n".join(rows))
        if first is not None:
            tokens = sum(len(continuation.ids) for continuation in generation.continuations)
            click.secho(speed(tokens, len(told), first - begun, time.perf_counter() - first), dim=True, err=True)


def speed(tokens: int, rows: int, first_s: float, rest_s: float) -> str:
    """Tokens, how many a second came behind the first ones, and how long those took, in a line for a person."""
    after = tokens - rows
    per_second = after / rest_s if rest_s > 0 else 0.0
    rate = f", {per_second:,.0f} a second" if per_second >= 100 else f", {per_second:.3g} a second" if after > 0 else ""
    return f"{tokens} token{'' if tokens == 1 else 's'}{rate}, {first_s:.2f} s to the first"
