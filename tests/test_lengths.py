"""A function is one step: the body of none, its docstring aside, is longer than most of a screen."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import gpt_export
import gpt_export_models

FOLDERS = [Path(str(package.__file__)).parent for package in (gpt_export, gpt_export_models)]
MOST_LINES = 40


def long_functions(text: str) -> Iterator[tuple[str, int]]:
    """The functions of a file with more than `MOST_LINES` lines of body, and how many each has.

    A signature is not counted: that of the front door names some thirty options, one a line, and is no step.
    """
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            if lines > MOST_LINES:
                yield node.name, lines


def test_no_function_is_longer_than_a_screen() -> None:
    files = [path for folder in FOLDERS for path in folder.rglob("*.py")]
    assert len(files) > 100
    found = {f"{path}: {name}": lines for path in files for name, lines in long_functions(path.read_text("utf-8"))}
    assert found == {}


def test_a_planted_long_function_is_found() -> None:
    body = ["    x = 1"] * MOST_LINES
    fits, too_long = ["def fits():", *body], ["@cached", "async def too_long():", *body, "    return x"]
    told = ["def told(", *[f"    a{i}," for i in range(60)], "):", '    """One.', *["    More."] * 60, '    """', *body]
    assert list(long_functions("\n".join([*fits, *told, "class A:", *(f"    {line}" for line in too_long)]))) == [
        ("too_long", MOST_LINES + 1)
    ]
