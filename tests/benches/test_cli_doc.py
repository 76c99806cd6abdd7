"""The reference of the command line is what the commands say of themselves."""

from __future__ import annotations

import re

from gpt_export.cli import cli

from benches.cli_doc import PAGE, render


def test_the_page_is_up_to_date() -> None:
    assert render() == PAGE.read_text(encoding="utf-8"), "run python -m benches.cli_doc"


def test_every_command_and_option_is_there() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == list(cli.commands)
    for command in cli.commands.values():
        for parameter in command.params:
            for option in parameter.opts if parameter.param_type_name == "option" else ():
                assert option in page
