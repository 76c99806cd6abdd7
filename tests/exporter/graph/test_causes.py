"""Whose line an error names, and which of a chain's sentences."""

from __future__ import annotations

import functools
import inspect
import json

import pytest
from gpt_export.errors import GraphError
from gpt_export.graph.causes import explained, first_sentence, innermost_cause, user_frame


def caught(function: functools.partial[object] | object) -> Exception:
    with pytest.raises(Exception) as raised:  # noqa: PT011  # any
        function()  # type: ignore[operator]
    return raised.value


def through_a_library() -> object:
    return json.loads("{")


def chained() -> None:
    try:
        raise ValueError("\x1b[96mthe real reason\x1b[0m:\n\n## Exception summary\nmore")
    except ValueError as error:
        raise RuntimeError("Failed to export the model. This is step 1/3 of exporting") from error


def after_another_failure() -> None:
    try:
        raise GraphError("an earlier attempt")
    except GraphError:
        raise ValueError("this attempt") from None


def line_of(function: object, text: str) -> int:
    lines, first = inspect.getsourcelines(function)  # type: ignore[arg-type]
    return first + next(i for i, line in enumerate(lines) if text in line)


def test_the_line_is_the_users_that_called_a_library_and_not_the_librarys() -> None:
    assert user_frame(caught(through_a_library)) == (__file__, line_of(through_a_library, "json.loads"))


def test_the_cause_is_the_innermost_without_colours_or_what_follows_it() -> None:
    error = caught(chained)
    assert innermost_cause(error) == "the real reason"
    assert explained(error) == f"the real reason ({__file__}, line {line_of(chained, 'raise ValueError')})"


def test_an_earlier_failure_is_not_the_cause_of_a_later_one() -> None:
    assert innermost_cause(caught(after_another_failure)) == "this attempt"


def test_torchscript_says_the_deepest_place_first_and_torch_export_last() -> None:
    places = 'File "/home/me/a.py", line 1\n{}\nFile "/home/me/b.py", line 2\n'
    assert user_frame(RuntimeError(places.format("~~~ <--- HERE"))) == ("/home/me/a.py", 1)
    assert user_frame(RuntimeError(places.format(""))) == ("/home/me/b.py", 2)


def test_lines_of_installed_packages_are_nobodys() -> None:
    assert user_frame(RuntimeError('File "/env/lib/python3.11/site-packages/einops/einops.py", line 3')) is None


def test_a_sentence_has_no_addresses_and_an_end() -> None:
    assert first_sentence(OSError("no source for <function f at 0x7f04> here")) == "no source for <function f> here"
    assert first_sentence(KeyError("final_norm")) == "KeyError: 'final_norm'"
    assert first_sentence(RuntimeError()) == "RuntimeError"
    assert len(first_sentence(RuntimeError("word " * 1000))) <= 304
