"""A document on its way in: what it is called, where its text or ids come from, and what keeps it from being scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One text, or one row of ids. A long text is read block by block, and never held whole."""

    name: str
    """What results call it, such as a file's path, or a path with a line's number."""
    blocks: Callable[[], Iterator[str]] | None = None
    """Opens the text, which comes in blocks; None for ids.

    What it raises of `UnicodeDecodeError` and `OSError` fails this document alone.
    """
    ids: Sequence[int] | None = None
    fault: str | None = None
    """Why it cannot be scored, if that is known already; one clause without a full stop."""
    size_bytes: int = 0
    """How much of the input it is, for the progress; 0 if nobody knows."""
    extra: Any = None
    """What the caller wants to find in the result again, such as an `id` of a JSON line."""

    @classmethod
    def of_text(cls, name: str, text: str, extra: Any = None) -> Document:
        """The document of a text that is in memory."""
        size = len(text.encode("utf-8", errors="replace"))
        return cls(name=name, blocks=lambda: iter((text,)), size_bytes=size, extra=extra)

    @classmethod
    def failed(cls, name: str, fault: str, size_bytes: int = 0) -> Document:
        """A document of which only its fault is known."""
        return cls(name=name, fault=fault, size_bytes=size_bytes)


def documents_of(given: Iterable[str | Sequence[int] | Document]) -> Iterator[Document]:
    """Texts, rows of ids and documents as documents; what has no name is called by its number, from 0."""
    for number, one in enumerate(given):
        if isinstance(one, Document):
            yield one
        elif isinstance(one, str):
            yield Document.of_text(str(number), one)
        else:
            yield Document(name=str(number), ids=one)
