"""What is run through both models: tokenized text, a grid of shapes, and for a cache every way of feeding it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from exporter.config import CaseSet, ExportConfig
from exporter.errors import ConfigError, TextError
from exporter.parity import Shown
from exporter.source import Source
from models.tokenizer import encode_batch, pad

logger = logging.getLogger(__name__)

SEED_TEXTS = ("Every effort moves you", "Every day holds a")
"""The book's batch; compared where the user passes no text."""
GRID_BATCHES = (1, 2, 5)
GRID_SEQUENCES = (1, 2, 17)
"""Besides these, the context length."""
DEFAULT_POSITIONS = 2000
CASE_BYTES = 256 * 1024 * 1024
"""In the default set no case has more logits than this, whatever the vocabulary."""
PADDED_LENGTHS = (17, 1, 6)
STEPS = 17

Need = Literal["ids", "mask", "cache"]
"""What a candidate must take to run a case: ids alone, an attention mask, or a past as well."""


@dataclass(frozen=True, slots=True)
class Case:
    """Ids to run and the mask of those that are no padding, both (batch, sequence), under a name."""

    name: str
    ids: NDArray[np.int64]
    mask: NDArray[np.int64]
    reason: str
    """Why the case is there."""
    note: str = ""
    """What it does not show of what it stands for."""
    chunks: tuple[int, ...] = ()
    """Lengths of the pieces that a cached candidate is fed; empty for one pass."""
    needs: Need = "ids"

    @property
    def positions(self) -> int:
        """Positions that are run, padding included."""
        return self.ids.size

    def rows(self) -> Iterator[NDArray[np.int64]]:
        """The ids of each row without its padding, (1, length)."""
        for ids, mask in zip(self.ids, self.mask, strict=True):
            yield ids[None, mask.astype(bool)]

    def shown(self) -> Shown:
        """What `parity.compare` needs of the case."""
        return Shown(self.name, self.mask.astype(bool), self.note)


def choose_cases(source: Source, config: ExportConfig) -> tuple[Case, ...]:
    """The cases that the settings ask for.

    They are the texts where the model has a tokenizer (the default ones unless it cannot take them), the ways of
    feeding a cache where the graph has one, and the shape grid.

    Raises:
        ConfigError: texts were given for a model without a tokenizer.
        TextError: a text gives no token, or more than the context holds.
    """
    cases = _text_cases(source, config.texts)
    if source.cache:
        cases += cache_cases(source.context_length, source.vocab_size, seed=config.seed)
    spent = sum(case.positions for case in cases)
    grid = grid_cases(source.context_length, source.vocab_size, config.cases, seed=config.seed, spent=spent)
    return (*cases, *grid)


def cache_cases(context_length: int, vocab_size: int, *, seed: int = 0) -> tuple[Case, ...]:
    """Cases that feed a cache token by token, in chunks, up to its end, and with padding on either side.

    Each is compared with eager in one pass over every row alone, so that a cached step equals an uncached one, a
    chunk its place in the whole, and a padded row the same row without padding. Every greedy choice along the way is
    the reference's too: `CaseResult.top1_agreement` says so, near-ties told apart.
    """
    length = min(STEPS, context_length)
    rows = [_ids(vocab_size, (seed, 3, i), (min(n, context_length),)) for i, n in enumerate(PADDED_LENGTHS)]
    stepped = _ids(vocab_size, (seed, 1), (2, length))
    chunked = _ids(vocab_size, (seed, 2), (2, length))
    ends = sorted({min(cut, length) for cut in (5, 6, STEPS)})
    chunks = tuple(int(size) for size in np.diff([0, *ends]))
    left, right = (
        pad([row.tolist() for row in rows], side="left", pad_id=0),
        pad([row.tolist() for row in rows], pad_id=0),
    )
    return (
        _whole("cache-steps", stepped, "a cached step equals an uncached one", (1,) * length),
        _whole("cache-chunks", chunked, "prefill in chunks equals one pass", chunks),
        Case("pad-left", *left, "a left-padded row equals the row alone", needs="mask"),
        Case("pad-right", *right, "a right-padded row equals the row alone", needs="mask"),
        Case("pad-left-chunks", *left, "padding in the past is not looked at", chunks=_halves(length), needs="cache"),
    )


def grid_cases(
    context_length: int, vocab_size: int, chosen: CaseSet, *, seed: int = 0, spent: int = 0
) -> tuple[Case, ...]:
    """Seeded random ids for each batch size and length, the last length being the context.

    In the default set the large corners shrink so that all cases together, with the `spent` positions of others, stay
    near `DEFAULT_POSITIONS`; the note of a shrunk case says what it stands for.
    """
    lengths = sorted({min(length, context_length) for length in (*GRID_SEQUENCES, context_length)})
    shapes = [(batch, length) for length in lengths for batch in GRID_BATCHES]
    used = spent
    cases = []
    for i, (batch, length) in enumerate(shapes):
        shown = length
        if chosen == "default":
            left = max(0, DEFAULT_POSITIONS - used)
            share = 2 * left // 3 if batch == 1 else left // (len(shapes) - i)
            shown = max(1, min(length, share // batch, CASE_BYTES // (4 * vocab_size * batch)))
        note = "" if shown == length else f"stands for {batch} x {length}; the full set runs it whole"
        ids = _ids(vocab_size, (seed, batch, length), (batch, shown))
        cases.append(Case(f"grid-{batch}x{shown}", ids, np.ones_like(ids), f"shape {batch} x {length}", note))
        used += batch * shown
    return tuple(cases)


def _text_cases(source: Source, texts: tuple[str, ...] | None) -> tuple[Case, ...]:
    if source.tokenizer is None:
        if texts is not None:
            raise ConfigError(
                f"{source.name} has a vocabulary of {source.vocab_size} and no tokenizer for it; leave --text out"
            )
        return ()
    try:
        ids, mask = encode_batch(texts or SEED_TEXTS, source.context_length, tokenizer=source.tokenizer)
    except TextError as error:
        if texts is not None:
            raise
        logger.info("the default texts are left out: %s", error)
        return ()
    return (Case("text", ids, mask, "real token sequences"),)


def _whole(name: str, ids: NDArray[np.int64], reason: str, chunks: tuple[int, ...]) -> Case:
    return Case(name, ids, np.ones_like(ids), reason, chunks=chunks, needs="cache")


def _halves(length: int) -> tuple[int, ...]:
    return (length,) if length < 2 else (length // 2, length - length // 2)


def _ids(vocab_size: int, seed: tuple[int, ...], shape: tuple[int, ...]) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, vocab_size, shape, dtype=np.int64)
