"""Documents in, parts out: each a few ten thousand tokens in windows, and which documents they are of.

What is in a part depends on the documents and the settings alone, so that a run that is taken up again finds the same
parts, and the same rows beside each other in a batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from gpt_export_models.errors import TextError
from gpt_export_models.tokenizer import Tokenizer

from gpt_export.scoring.documents import Document
from gpt_export.scoring.encoding import encode_blocks
from gpt_export.scoring.scoring_work import Row
from gpt_export.scoring.windows import Ids, windows


@dataclass(slots=True, kw_only=True)
class Fragment:
    """What of a document is in a part: mostly all of it."""

    document: int
    name: str
    extra: Any = None
    rows: list[Row] = field(default_factory=list)
    tokens: int = 0
    size_bytes: int = 0
    """Of the text in UTF-8; 0 for a document of ids."""
    input_bytes: int = 0
    """How much of the input is behind us when the fragment is done, for the progress."""
    ends: bool = False
    """Whether the document ends here."""
    fault: str | None = None


@dataclass(slots=True, kw_only=True)
class Part:
    """What is written together."""

    number: int
    fragments: list[Fragment] = field(default_factory=list)

    @property
    def rows(self) -> list[Row]:
        """The windows of all its documents."""
        return [row for fragment in self.fragments for row in fragment.rows]

    def names(self) -> list[str]:
        """What its documents are called."""
        return [fragment.name for fragment in self.fragments]

    def digest(self) -> str:
        """SHA-256 of everything that is scored here, to know it again."""
        found = hashlib.sha256()
        for fragment in self.fragments:
            found.update(f"{fragment.document} {fragment.name} {fragment.fault} {fragment.ends}\n".encode())
            for row in fragment.rows:
                found.update(f"{row.window.start} {row.window.first} ".encode())
                found.update(row.window.ids.astype("<i4").tobytes())
        return found.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Planner:
    """How documents become parts."""

    tokenizer: Tokenizer | None
    vocab_size: int
    window: int
    stride: int
    whole_windows: bool
    part_tokens: int

    def parts(self, documents: Iterable[Document]) -> Iterator[Part]:
        """The parts in order; holds one at a time."""
        part, room, behind = Part(number=0), self.part_tokens, 0
        for number, document in enumerate(documents):
            for fragment in self._fragments(number, document, room):
                read = document.size_bytes if fragment.ends else min(document.size_bytes, fragment.size_bytes)
                behind += read
                fragment.input_bytes = behind
                part.fragments.append(fragment)
                room -= sum(len(row.window.ids) for row in fragment.rows) + 1
                if room <= 0 or not fragment.ends:
                    yield part
                    part, room = Part(number=part.number + 1), self.part_tokens
                if not fragment.ends:
                    document = replace(document, size_bytes=document.size_bytes - read)
        if part.fragments:
            yield part

    def _fragments(self, number: int, document: Document, room: int) -> Iterator[Fragment]:
        """The document's fragments: the first has about `room` tokens, the others as many as a part."""
        counted = _Counted()
        name = document.name.encode("utf-8", "replace").decode()  # a file's name need not be UTF-8
        fragment = Fragment(document=number, name=name, extra=document.extra)
        any_scored = False
        try:
            if document.fault:
                raise _FaultError(document.fault)
            for window in windows(
                self._ids(document, counted), self.window, self.stride, whole_only=self.whole_windows
            ):
                if room <= 0:
                    fragment.tokens, fragment.size_bytes = counted.taken()
                    yield fragment
                    fragment = Fragment(document=number, name=name, extra=document.extra)
                    room = self.part_tokens
                fragment.rows.append(Row(document=number, window=window))
                room -= len(window.ids)
                any_scored = True
            if not any_scored:
                raise _FaultError(self._nothing(counted.tokens))
        except _FaultError as fault:
            fragment.rows, fragment.fault = [], str(fault)
        except UnicodeDecodeError as error:
            fragment.rows, fragment.fault = [], f"it is not UTF-8: {error.reason} at byte {error.start} of its block"
        except UnicodeEncodeError as error:
            fragment.rows, fragment.fault = [], f"it is not valid Unicode: {error.reason}"
        except OSError as error:
            fragment.rows, fragment.fault = [], f"it cannot be read: {error.strerror or error}"
        except TextError as error:
            fragment.rows, fragment.fault = [], str(error)
        fragment.tokens, fragment.size_bytes = counted.taken()
        fragment.ends = True
        yield fragment

    def _nothing(self, tokens: int) -> str:
        if self.whole_windows and tokens > 1:
            return f"it has {tokens} tokens, less than a whole window of {self.window}"
        return "it is empty" if not tokens else "it has one token, and the first of a text has no loss"

    def _ids(self, document: Document, counted: _Counted) -> Iterator[Ids]:
        if document.ids is not None:
            yield counted.note(self._checked(document.ids), 0)
        elif document.blocks is not None:
            if self.tokenizer is None:
                raise _FaultError("it is a text, and the artifact is for ids alone")
            for ids, size in encode_blocks(document.blocks(), self.tokenizer):
                yield counted.note(self._checked(ids), size)

    def _checked(self, given: Any) -> Ids:
        ids = np.asarray(given)
        if ids.size and (ids.ndim != 1 or ids.dtype.kind not in "iu"):
            raise _FaultError("its ids are no row of whole numbers")
        if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= self.vocab_size):
            wrong = int(ids.min()) if int(ids.min()) < 0 else int(ids.max())
            raise _FaultError(f"id {wrong} is outside the vocabulary; ids run from 0 to {self.vocab_size - 1}")
        return ids.astype(np.int32)


class _FaultError(Exception):
    """Why a document cannot be scored."""


class _Counted:
    """Tokens and bytes of a document, in all and since it was last asked."""

    def __init__(self) -> None:
        self.tokens = self._bytes = 0
        self._told = (0, 0)

    def note(self, ids: Ids, size: int) -> Ids:
        self.tokens += len(ids)
        self._bytes += size
        return ids

    def taken(self) -> tuple[int, int]:
        before, self._told = self._told, (self.tokens, self._bytes)
        return self.tokens - before[0], self._bytes - before[1]
