"""Text that can be seen: spaces, line ends, control and other invisible characters get a mark in their place."""

from __future__ import annotations

import unicodedata
from typing import NamedTuple

_MARKS = {" ": "·", "\n": "↵", "\r": "␍", "\t": "⇥", "\x7f": "␡", "\ufffd": "�"}
_INVISIBLE = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"})


class Piece(NamedTuple):
    """A stretch of text, or the mark that stands for a character that could not be seen."""

    text: str
    is_mark: bool


def visible(text: str) -> tuple[Piece, ...]:
    """`text` in pieces that all can be seen; `(empty)` for none."""
    pieces: list[Piece] = []
    for char in text:
        mark = _mark(char)
        if mark is None and pieces and not pieces[-1].is_mark:
            pieces[-1] = Piece(pieces[-1].text + char, False)
        elif mark is None and unicodedata.combining(char):
            pieces.append(Piece("\u25cc" + char, False))  # an accent alone needs a circle to stand on
        else:
            pieces.append(Piece(mark or char, mark is not None))
    return tuple(pieces) or (Piece("(empty)", True),)


def printable(text: str) -> str:
    """`text` that may stand in HTML: line ends stay; other control characters and lone surrogates become marks."""
    if text.isprintable():
        return text
    return "".join(
        char if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cs") else _mark(char) or char
        for char in text
    )


def _mark(char: str) -> str | None:
    if char in _MARKS:
        return _MARKS[char]
    if unicodedata.category(char) not in _INVISIBLE:
        return None
    code = ord(char)
    return chr(0x2400 + code) if code < 0x20 else f"U+{code:04X}"
