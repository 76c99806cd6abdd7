"""What a session does with texts: ids and back by the artifact's own tokenizer, continuing, scoring. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpt_export.artifact.manifest import Manifest
from gpt_export.errors import InputError
from gpt_export.runtime.decoding import Decoding, even_chunks
from gpt_export.runtime.signature import CacheShape, Head

if TYPE_CHECKING:
    from gpt_export_models.tokenizer import Tokenizer


class Texts:
    """The part of a `Session` that takes texts. The tokenizer is opened when the first one comes."""

    manifest: Manifest
    folder: Path | None
    vocab_size: int
    context_length: int
    head: Head
    cache: CacheShape | None

    def decoding(self, batch: int) -> Decoding:
        """See `Session.decoding`."""
        raise NotImplementedError

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """The artifact's tokenizer, None for one of ids alone.

        Raises:
            ArtifactError: a file of it is damaged.
        """
        from gpt_export.runtime.tokenizing import open_tokenizer  # an import that ids do without

        return None if self.folder is None else open_tokenizer(self.folder, self.manifest)

    def encode(self, text: str) -> list[int]:
        """The ids of `text`: `session.logits([session.encode(text)])`.

        Raises:
            TextError: the text gives no token, or more than the context holds.
            InputError: the artifact has no tokenizer.
        """
        from gpt_export_models.tokenizer import encode

        return encode(text, self.context_length, self._tokenizer())

    def decode(self, ids: ArrayLike) -> str:
        """The text of a row of ids, special tokens spelled out; bytes that are no UTF-8 become U+FFFD.

        Raises:
            InputError: they are no row of ids, or the artifact has no tokenizer.
        """
        row = np.asarray(ids)
        if row.ndim > 1 or (row.size and row.dtype.kind not in "iu"):
            raise InputError(f"ids must be one row of whole numbers, not {list(row.shape)} of {row.dtype}; pass a row")
        return self._tokenizer().decode([int(token) for token in row.reshape(-1)])

    def text(
        self,
        prompt: str,
        *,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        stops: Sequence[str] = (),
    ) -> Iterator[str]:
        """What comes after `prompt`, in pieces as they are certain: `print("".join(session.text("Hello, I am")))`.

        It ends with its length, in front of one of the `stops`, or with the tokenizer's end of text.

        Args:
            max_new_tokens: how many tokens; 50, or as many as the context has room for, if left out.
            temperature: as in `Session.generate`, and so are the next five.

        Raises:
            TextError: the prompt gives no token, or more than the context holds.
            InputError: a setting is out of range, or the artifact has no tokenizer.
            ContextError: the context is full; after the last piece.
        """
        from gpt_export.runtime.generation import Generating, Generation, GenerationConfig

        config = GenerationConfig(
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            seed=seed,
            stops=(stops,) if isinstance(stops, str) else tuple(stops),
        )
        generation = Generation(cast(Generating, self), self._tokenizer(), [prompt], config)
        return (piece for _, piece in generation)

    def score(self, text: str) -> NDArray[np.float64]:
        """The log-probability of each token of `text` behind the first, in nats, float64 (tokens - 1,).

        `numpy.exp(-session.score(text).mean())` is the perplexity. The first token has nothing before it and no score.

        Raises:
            TextError: the text gives no token, or more than the context holds.
            InputError: the artifact has no tokenizer, or does not score every position.
        """
        if self.head.of != "tokens" or self.head.positions != "all":
            raise InputError(f"{self.manifest.name} does not give the logits of every position, so a text has no score")
        ids = np.array([self.encode(text)], dtype=np.int64)
        mask, decoding, found = np.ones_like(ids), self.decoding(1), []
        for start, stop in even_chunks(ids.shape[1]) if self.cache else [(0, ids.shape[1])]:
            logits = decoding.feed(ids[:, start:stop], mask[:, start:stop])[0]
            found.append(_log_probabilities(logits, ids[0, start + 1 : stop + 1]))
        return np.concatenate(found)

    def _tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise InputError(f"{self.manifest.name} has no tokenizer, it is for ids alone; use generate and logits")
        return self.tokenizer


def _log_probabilities(logits: NDArray[np.float32], following: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of each position the log of the softmax at the id that follows; the last position of a text has none."""
    rows = logits[: len(following)].astype(np.float64)
    rows -= rows.max(axis=-1, keepdims=True)
    chosen: NDArray[np.float64] = rows[np.arange(len(rows)), following] - np.log(np.exp(rows).sum(axis=-1))
    return chosen
