"""Options that several commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from exporter.cli.errors import F, RunOptions

OUTPUT = click.Path(path_type=Path)
ARTIFACTS = Path("artifacts")


def export_options(command: F) -> F:
    """Adds the options of every command that publishes an artifact."""
    for option in reversed(
        (
            click.option("--output", type=OUTPUT, metavar="FOLDER", help="Artifact folder.  [default: artifacts/NAME]"),
            click.option(
                "--seed", type=click.IntRange(0), default=123, show_default=True, help="Seed of weights and ids."
            ),
            config_option,
            click.option("--force", is_flag=True, help="Replace an artifact that is there."),
            gate_option,
        )
    ):
        command = option(command)
    return case_options(command)


def case_options(command: F) -> F:
    """Adds the options that choose what is compared."""
    command = click.option(
        "--cases",
        type=click.Choice(["default", "full"]),
        default="default",
        show_default=True,
        help="How much is compared: about 2,000 positions, or every shape whole.",
    )(command)
    return click.option(
        "--text",
        "texts",
        multiple=True,
        metavar="TEXT",
        help="A text to compare on; repeatable.  [default: two prompts of the book]",
    )(command)


config_option = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="JSON of the book's configuration, for its checkpoints: they do not say n_heads.",
)
gate_option = click.option(
    "--gate",
    type=click.Choice(["enforce", "report", "off"]),
    default="enforce",
    show_default=True,
    help="On a failed comparison: publish nothing and exit 3, or publish and record it. Off compares nothing.",
)


def echo_result(values: dict[str, Any], text: str) -> None:
    """The result on stdout: JSON if `--json` was given, else the text."""
    options = click.get_current_context().ensure_object(RunOptions)
    click.echo(json.dumps(values, indent=2, sort_keys=True) if options.as_json else text)
