"""Options that several commands share."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import click
from gpt_export_models.errors import TextError
from gpt_export_models.problems import printable
from gpt_export_models.regular_files import RefusedFileError
from gpt_export_models.regular_files import read_text as read_utf8

from gpt_export.artifact.staging import check_output
from gpt_export.cli.errors import F, RunOptions
from gpt_export.cli.report_page import html_option

OUTPUT = click.Path(path_type=Path)
ARTIFACTS = Path("artifacts")


def export_options(suffix: str = "") -> Callable[[F], F]:
    """Adds the options of every command that publishes an artifact, and has its failures say that none was.

    Args:
        suffix: what the command puts behind the source's name for the folder that nobody named.
    """
    output = f"Artifact folder.  [default: {ARTIFACTS}/NAME{suffix}]"
    options = (
        click.option("--output", type=OUTPUT, metavar="FOLDER", help=output),
        click.option("--seed", type=click.IntRange(0), default=123, show_default=True, help="Seed of weights and ids."),
        source_options,
        click.option("--force", is_flag=True, help="Replace an artifact that is there."),
        click.option("--license", metavar="ID", help="The weights' licence for the model card, such as apache-2.0."),
        click.option("--base-model", metavar="ID", help="The hub's name of what this is an export of, for the card."),
        gate_option,
        html_option,
    )

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def publishing(*args: Any, **values: Any) -> Any:
            click.get_current_context().ensure_object(RunOptions).publishes = True
            if values["output"] is not None:  # before the seconds that PyTorch takes to load
                check_output(values["output"], replace=values["force"])
            return command(*args, **values)

        decorated = cast(F, publishing)
        for option in reversed(options):
            decorated = option(decorated)
        return case_options(decorated)

    return decorate


def case_options(command: F) -> F:
    """Adds the options that choose what is compared, and what is allowed."""
    options = (
        click.option(
            "--text",
            "texts",
            multiple=True,
            metavar="TEXT",
            help="A text to compare on; repeatable.  [default: two prompts of the book]",
        ),
        click.option(
            "--text-file",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            metavar="FILE",
            help="A UTF-8 text to compare on as well.",
        ),
        click.option(
            "--cases",
            default="default",
            show_default=True,
            metavar="SET|NAMES",
            help="default: some hundred positions; full: every shape whole; or names of cases, with commas.",
        ),
        click.option("--atol", type=float, help="Allow this difference, with --rtol, instead of the measured limit."),
        click.option("--rtol", type=float, help="Allow this share of each logit, with --atol."),
        click.option(
            "--kl", type=float, help="Allow this mean KL divergence, in nats; tightens other precisions than fp32."
        ),
        click.option(
            "--top1",
            type=float,
            help="Demand this share of agreeing likeliest tokens.  [default: 1, less for int8 and int4]",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def comparison(
    *,
    texts: tuple[str, ...],
    text_file: Path | None,
    cases: str,
    atol: float | None,
    rtol: float | None,
    kl: float | None,
    top1: float | None,
) -> dict[str, Any]:
    """What `case_options` were given, as settings of `ExportConfig`; limits are None where none was."""
    from gpt_export.gate.limits import LIMITS

    given = {atol, rtol, kl, top1}
    return {
        "texts": texts or None,
        "corpus": None if text_file is None else read_text(text_file),
        "cases": names_in(cases),
        "variant_kl": kl,
        "variant_top1": top1,
        "limits": None if given == {None} else LIMITS["fp32"].overridden(atol=atol, rtol=rtol, kl=kl, top1=top1),
    }


def names_in(text: str) -> tuple[Any, ...]:
    """The names in a list with commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def read_text(path: Path) -> str:
    """The UTF-8 text of a file.

    Raises:
        TextError: it cannot be read, or is not UTF-8.
    """
    try:
        return read_utf8(path)
    except RefusedFileError as error:
        raise TextError(f"{path} is not read: {error}; write the text to a file first") from error
    except (OSError, UnicodeDecodeError) as error:
        raise TextError(f"{path} is not a readable UTF-8 text: {error}; convert it") from error


def source_options(command: F) -> F:
    """Adds what a SOURCE does not say itself: its configuration, its head count, its weights, its adapter."""
    options = (
        click.option(
            "--config",
            "config_file",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help="JSON that a factory takes; for checkpoints of the book's code, its configuration.",
        ),
        click.option(
            "--heads", type=click.IntRange(1), metavar="N", help="Heads of a checkpoint that does not say it."
        ),
        click.option(
            "--weights",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="A checkpoint to load into the class that package.module:factory names.",
        ),
        click.option(
            "--adapter",
            metavar="FOLDER|none",
            help="A PEFT adapter to merge.  [default: the one that lies beside the weights; none leaves it away]",
        ),
        click.option(
            "--base",
            type=click.Path(path_type=Path),
            metavar="FOLDER",
            help="The model that SOURCE, an adapter alone, was trained on.",
        ),
        click.option("--lora-alpha", type=float, metavar="X", help="Alpha of the low-rank layers of the book's code."),
    )
    for option in reversed(options):
        command = option(command)
    return command


kv_cache_option = click.option(
    "--kv-cache",
    "kv_caches",
    default="fp32",
    show_default=True,
    metavar="NAMES",
    help="What keys and values are kept in, with commas: fp32, or int8, a quarter of it; each makes a variant.",
)
calibration_option = click.option(
    "--calibration",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="A UTF-8 text of the model's domain, for better int4 (GPTQ) and --kv-cache int8.",
)
gate_option = click.option(
    "--gate",
    type=click.Choice(["enforce", "report", "off"]),
    default="enforce",
    show_default=True,
    help="On a failed comparison: publish nothing and exit 3, or publish and record it. Off compares nothing.",
)


def whole_numbers(_context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """Whole numbers from a list with commas.

    Raises:
        click.BadParameter: something in it is no whole number of at least 1.
    """
    parts = [part.strip() for part in value.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise click.BadParameter(f"{value!r} is not a list of whole numbers of at least 1, such as {parameter.default}")
    return tuple(map(int, parts))


def as_json() -> bool:
    """Whether `--json` was given."""
    return click.get_current_context().ensure_object(RunOptions).as_json


def echo_json(values: dict[str, Any]) -> None:
    """The values on stdout, indented and sorted."""
    click.echo(json.dumps(values, indent=2, sort_keys=True))


def echo_result(values: dict[str, Any], text: str) -> None:
    """The result on stdout: JSON if `--json` was given, else the text."""
    if as_json():
        echo_json(values)
    else:
        click.echo(printable(text))
