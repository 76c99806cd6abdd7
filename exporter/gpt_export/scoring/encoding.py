"""A text that comes in blocks to its ids, piece by piece, as if it had been encoded whole.

A byte-pair or word-piece tokenizer looks at a few characters around a place, so a text may be cut where encoding the
two sides apart gives what encoding them together gives. That is tried at each cut, on the characters around it, and
not believed of a kind of tokenizer; where no place passes, more text is taken together.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator

from gpt_export_models.tokenizer import Tokenizer

PIECE_CHARACTERS = 1 << 18
AROUND = 400
"""Characters on each side on which a cut is tried."""
TRIES = 32
_LINE_END = re.compile(r"(?<=\S)\n(?=\S)")

logger = logging.getLogger(__name__)


def encode_blocks(
    blocks: Iterable[str], tokenizer: Tokenizer, size: int = PIECE_CHARACTERS
) -> Iterator[tuple[list[int], int]]:
    """Ids of the next piece of the text, and how many bytes of UTF-8 it has; all pieces together are the whole's.

    Raises:
        TextError: the tokenizer has no ids for it.
        UnicodeEncodeError: it holds half a character, as JSON can spell it.
        UnicodeDecodeError, OSError: as the blocks raise them.
    """
    joint = _Joint(tokenizer)
    held, asked = "", size
    for block in blocks:
        held += block
        while len(held) > asked:
            if not (cut := joint.place(held)):
                asked = 2 * len(held)
                logger.info("no place was found to cut %d characters for the tokenizer", len(held))
                break
            size_bytes = _bytes(held[:cut])
            yield joint.encode(held[:cut]), size_bytes
            held, asked = held[cut:], size
    if held:
        size_bytes = _bytes(held)
        yield joint.encode(held), size_bytes


class _Joint:
    """Where a text may be cut for one tokenizer, and the ids of the parts."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._added = tokenizer.encode("")
        self._begun = False

    def encode(self, text: str) -> list[int]:
        """The ids of the next part, without what the tokenizer puts in front of a text if it is not the first."""
        ids = self._tokenizer.encode(text)
        kept = len(self._added) if self._begun and ids[: len(self._added)] == self._added else 0
        self._begun = True
        return ids[kept:]

    def place(self, text: str) -> int:
        """The last place where `text` may be cut, 0 if none was found."""
        ends = [match.end() for match in _LINE_END.finditer(text, max(0, len(text) - 32 * AROUND), len(text) - 1)]
        for place in ends[::-1][:TRIES]:
            left, right = text[max(0, place - AROUND) : place], text[place : place + AROUND]
            whole, first, second = map(self._tokenizer.encode, (left + right, left, right))
            added = self._added
            if second[: len(added)] == added and whole == first + second[len(added) :]:
                return place
        return 0


def _bytes(text: str) -> int:
    return len(text.encode("utf-8"))
