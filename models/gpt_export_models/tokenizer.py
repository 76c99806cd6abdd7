"""Texts to token ids and back: what any tokenizer does, and tiktoken's `gpt2` from the embedded merges, offline."""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Literal, Protocol

import numpy as np
import tiktoken
from numpy.typing import NDArray
from tiktoken_ext.openai_public import ENDOFTEXT, r50k_pat_str

from gpt_export_models.errors import GptExportError, TextError

VOCAB_BPE_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
GPT2_VOCAB_SIZE = 50257
END_OF_TEXT_ID = 50256


class Tokenizer(Protocol):
    """Texts to token ids and back. Ids that it does not know, such as a padded vocabulary's last ones, say nothing."""

    @property
    def name(self) -> str:
        """What a manifest calls it: `gpt2`, or `carried` for files beside a checkpoint."""

    @property
    def end_of_text_id(self) -> int | None:
        """The id that ends a text, if there is one."""

    @property
    def specials(self) -> tuple[str, ...]:
        """The texts that spell special tokens."""

    def encode(self, text: str, *, special: bool = False, whole: bool = True) -> list[int]:
        """The ids of `text`; where it spells a special token, it is ordinary text.

        Args:
            special: take what spells a special token for that token.
            whole: add what belongs around a text, such as a token that begins it.

        Raises:
            TextError: the tokenizer has no ids for it.
        """

    def special_id(self, text: str) -> int | None:
        """The id of the special token that `text` spells, None if it spells none."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens spelled out; bytes that are no UTF-8 become U+FFFD."""

    def stream(self) -> TextStream:
        """A new decoding of ids that come one at a time."""


class TextStream(Protocol):
    """Text out of ids that come one at a time. A character whose bytes are spread over several ids comes whole."""

    def feed(self, token_id: int) -> str:
        """The text that is certain now and was not before; often a token, at times nothing."""

    def end(self) -> str:
        """The text that was still waiting for more ids. All pieces together are what `decode` gives."""


class Gpt2Tokenizer:
    """tiktoken's `gpt2` as a `Tokenizer`."""

    name = "gpt2"
    end_of_text_id: int | None = END_OF_TEXT_ID
    specials: tuple[str, ...] = (ENDOFTEXT,)

    def encode(self, text: str, *, special: bool = False, whole: bool = True) -> list[int]:  # noqa: ARG002, nothing is
        """See `Tokenizer.encode`."""
        return gpt2_encoding().encode(text, allowed_special="all" if special else set(), disallowed_special=())

    def special_id(self, text: str) -> int | None:
        """See `Tokenizer.special_id`."""
        return END_OF_TEXT_ID if text == ENDOFTEXT else None

    def decode(self, ids: Sequence[int]) -> str:
        """See `Tokenizer.decode`."""
        return b"".join(map(_bytes_of, ids)).decode("utf-8", errors="replace")

    def stream(self) -> TextStream:
        """See `Tokenizer.stream`."""
        return _ByteStream()


class _ByteStream:
    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token_id: int) -> str:
        return self._decoder.decode(_bytes_of(token_id))

    def end(self) -> str:
        return self._decoder.decode(b"", final=True)


def _bytes_of(token_id: int) -> bytes:
    known = 0 <= token_id < GPT2_VOCAB_SIZE
    return gpt2_encoding().decode_single_token_bytes(token_id) if known else b""


@cache
def gpt2_encoding() -> tiktoken.Encoding:
    """tiktoken's `gpt2` encoding, equal to `tiktoken.get_encoding("gpt2")` but made from the embedded `vocab.bpe`.

    Raises:
        GptExportError: the embedded file is missing or altered.
    """
    try:
        merges = files("gpt_export_models").joinpath("data/vocab.bpe").read_bytes()
    except OSError as error:
        raise GptExportError(f"the embedded vocabulary cannot be read ({error}); reinstall gpt-export") from error
    digest = hashlib.sha256(merges).hexdigest()
    if digest != VOCAB_BPE_SHA256:
        raise GptExportError(
            f"the embedded vocabulary has SHA-256 {digest}, not {VOCAB_BPE_SHA256}; reinstall gpt-export"
        )
    ranks = bpe_ranks(merges.decode("utf-8"))
    return tiktoken.Encoding(
        name="gpt2",
        explicit_n_vocab=GPT2_VOCAB_SIZE,
        pat_str=r50k_pat_str,
        mergeable_ranks=ranks,
        special_tokens={ENDOFTEXT: END_OF_TEXT_ID},
    )


def bpe_ranks(merges: str) -> dict[bytes, int]:
    """The rank of each token's bytes in a file of byte-pair merges, as GPT-2 orders them.

    A merges file writes bytes as characters: printable Latin-1 bytes stand for themselves and come first, the
    others follow as code points from 256 (Radford et al., 2019). Single bytes take ranks 0 to 255, then each line
    of the file is one merge.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    byte_of = {chr(byte): byte for byte in printable}
    byte_of.update({chr(256 + i): byte for i, byte in enumerate(others)})

    ranks = {bytes([byte]): rank for rank, byte in enumerate(printable + others)}
    for line in merges.split("\n"):
        if line and not line.startswith("#version"):
            token = bytes(byte_of[char] for char in line if char != " ")
            ranks[token] = len(ranks)
    return ranks


def encode(
    text: str,
    context_length: int,
    tokenizer: Tokenizer | None = None,
    *,
    special: bool = False,
    whole: bool = True,
) -> list[int]:
    """The token ids of `text`, by GPT-2's tokenizer if none is given; see `Tokenizer.encode` for the rest.

    Raises:
        TextError: the text is no valid Unicode, gives no token, or more than `context_length`.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:  # a lone surrogate: bytes on a command line that are no UTF-8
        raise TextError(f"the text {shorten(ascii(text))} is not valid Unicode; pass it in UTF-8") from error
    ids = (tokenizer or Gpt2Tokenizer()).encode(text, special=special, whole=whole)
    if not ids:
        raise TextError(f"the text {text!r} gives no token; pass a text with at least one character")
    if len(ids) > context_length:
        raise TextError(
            f"the text {shorten(text)!r} gives {len(ids)} tokens, the context is {context_length}; shorten the text"
        )
    return ids


def pad(
    rows: Sequence[Sequence[int]], *, side: Literal["left", "right"] = "right", pad_id: int = END_OF_TEXT_ID
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of unequal length as a batch: ids and attention mask, both int64 (rows, longest row).

    The mask is 1 on tokens and 0 on padding.
    """
    length = max(len(row) for row in rows)
    ids = np.full((len(rows), length), pad_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    for i, row in enumerate(rows):
        where = slice(0, len(row)) if side == "right" else slice(length - len(row), length)
        ids[i, where] = row
        mask[i, where] = 1
    return ids, mask


def encode_batch(
    texts: Sequence[str],
    context_length: int,
    *,
    side: Literal["left", "right"] = "right",
    tokenizer: Tokenizer | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Texts as one padded batch: ids and attention mask, both int64 (texts, longest text in tokens).

    Raises:
        TextError: there is no text, or one gives no token or more than `context_length`.
    """
    if not texts:
        raise TextError("there is no text to encode; pass at least one")
    tokenizer = tokenizer or Gpt2Tokenizer()
    rows = [encode(text, context_length, tokenizer) for text in texts]
    return pad(rows, side=side, pad_id=tokenizer.end_of_text_id or 0)


def shorten(text: str, limit: int = 40) -> str:
    """`text`, cut to `limit` characters with an ellipsis, for messages."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
