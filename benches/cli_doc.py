"""Makes docs/cli-reference.md from the commands themselves.

`python -m benches.cli_doc` rewrites the page; with `--check` it only says whether the page is up to date.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import click
from gpt_export.cli import cli

from benches.page import keep_current

PAGE = Path(__file__).parent.parent / "docs" / "cli-reference.md"
HEAD = """# Command line reference

Every command and option, made from the code; [cli.md](cli.md) says what they are for.
"""


def render(_page: str = "") -> str:
    """The page."""
    parts = [HEAD, *(_command(name, command) for name, command in cli.commands.items())]
    return "\n".join(parts)


def _command(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=f"gpt-export {name}")
    usage = " ".join(["gpt-export", name, *command.collect_usage_pieces(context)])
    lines = [f"## {name}", "", "```text", usage, "```", "", inspect.cleandoc(command.help or ""), ""]
    options = [option for option in command.params if isinstance(option, click.Option)]
    if options:
        lines += ["| option | |", "| --- | --- |", *(_row(option, context) for option in options), ""]
    return "\n".join(lines)


def _row(option: click.Option, context: click.Context) -> str:
    record = option.get_help_record(context)
    assert record is not None
    names, text = record
    return f"| `{_cell(names)}` | {_plain(_cell(text))} |"


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def _plain(text: str) -> str:
    """Markdown that is read as this text: brackets are no links, signs of comparison no tags."""
    return re.sub(r"([\[\]<>*_])", r"\\\1", text)


def main() -> None:
    keep_current(PAGE, render, "python -m benches.cli_doc", __doc__)


if __name__ == "__main__":
    main()
