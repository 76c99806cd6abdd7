"""Long lists as short words, for messages."""

from __future__ import annotations

from collections.abc import Iterable

LISTED = 8


def some(items: Iterable[object], *, limit: int = LISTED) -> str:
    """The first `limit` items with commas between them, and how many more there are."""
    words = [_printable(str(item)) for item in items]
    shown = ", ".join(words[:limit])
    return shown if len(words) <= limit else f"{shown} and {len(words) - limit} more"


def printable(text: str) -> str:
    """The text without the control characters that could move a terminal's cursor or colour it; lines stay lines."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)


def _printable(text: str, limit: int = 120) -> str:
    # names come out of files that anybody may have written: no control characters, no walls of text
    clean = printable(text).replace("\n", "\N{REPLACEMENT CHARACTER}")
    return clean if len(clean) <= limit else f"{clean[: limit - 1]}…"
