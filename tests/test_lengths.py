"""A function is one step: none is longer than a screen, its docstring aside."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import gpt_export
import gpt_export_models

FOLDERS = [Path(str(package.__file__)).parent for package in (gpt_export, gpt_export_models)]
MOST_LINES = 50


def long_functions(text: str) -> Iterator[tuple[str, int]]:
    """The functions of a file with more than `MOST_LINES` lines, and how many each has: decorators, signature, body."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            lines = (node.end_lineno or start) - start + 1
            if ast.get_docstring(node) is not None:
                lines -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
            if lines > MOST_LINES:
                yield node.name, lines


def test_no_function_is_longer_than_a_screen() -> None:
    files = [path for folder in FOLDERS for path in folder.rglob("*.py")]
    assert len(files) > 100
    found = {f"{path}: {name}": lines for path in files for name, lines in long_functions(path.read_text("utf-8"))}
    assert found == {}


def test_a_planted_long_function_is_found() -> None:
    body = ["    x = 1"] * (MOST_LINES - 1)
    fits, too_long = ["def fits():", *body], ["@cached", "async def too_long():", *body]
    told = ["def told():", '    """One.', "", *["    More."] * 60, '    """', *body]
    assert list(long_functions("\n".join([*fits, *told, "class A:", *(f"    {line}" for line in too_long)]))) == [
        ("too_long", MOST_LINES + 1)
    ]
