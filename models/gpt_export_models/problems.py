"""Long lists as short words, for messages."""

from __future__ import annotations

from collections.abc import Iterable

LISTED = 8


def some(items: Iterable[object], *, limit: int = LISTED) -> str:
    """The first `limit` items with commas between them, and how many more there are."""
    words = [_printable(str(item)) for item in items]
    shown = ", ".join(words[:limit])
    return shown if len(words) <= limit else f"{shown} and {len(words) - limit} more"


def _printable(text: str, limit: int = 120) -> str:
    # names come out of files that anybody may have written: no control characters, no walls of text
    clean = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return clean if len(clean) <= limit else f"{clean[: limit - 1]}…"
