"""What is run through both models: tokenized text and a grid of shapes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from exporter.config import CaseSet, ExportConfig
from exporter.errors import ConfigError
from exporter.parity import Shown
from exporter.source import Source
from models.tokenizer import encode_batch

SEED_TEXTS = ("Every effort moves you", "Every day holds a")
"""The book's batch; compared where the user passes no text."""
DEFAULT_TEXT_TOKENS = 4
GRID_BATCHES = (1, 2, 5)
GRID_SEQUENCES = (1, 2, 17)
"""Besides these, the context length."""
DEFAULT_POSITIONS = 2000
CASE_BYTES = 256 * 1024 * 1024
"""In the default set no case has more logits than this, whatever the vocabulary."""


@dataclass(frozen=True, slots=True)
class Case:
    """Ids to run, the mask of those that are no padding (both (batch, sequence)), a name, and why it is there."""

    name: str
    ids: NDArray[np.int64]
    mask: NDArray[np.int64]
    reason: str
    note: str = field(default="")

    @property
    def positions(self) -> int:
        """Positions that are run, padding included."""
        return self.ids.size

    def shown(self) -> Shown:
        """What `parity.compare` needs of the case."""
        return Shown(self.name, self.mask.astype(bool), self.note)


def choose_cases(source: Source, config: ExportConfig) -> tuple[Case, ...]:
    """The cases that the settings ask for: the texts where the model has a tokenizer, and the shape grid.

    Raises:
        ConfigError: texts were given for a model without a tokenizer.
        TextError: a text gives no token, or more than the context holds.
    """
    text = _text_cases(source, config.texts)
    spent = sum(case.positions for case in text)
    return (*text, *grid_cases(source.context_length, source.vocab_size, config.cases, seed=config.seed, spent=spent))


def _text_cases(source: Source, texts: tuple[str, ...] | None) -> tuple[Case, ...]:
    if source.encoding is None:
        if texts is not None:
            raise ConfigError(
                f"{source.name} has a vocabulary of {source.vocab_size} and no tokenizer for it; leave --text out"
            )
        return ()
    if texts is None and source.context_length < DEFAULT_TEXT_TOKENS:
        return ()
    ids, mask = encode_batch(texts or SEED_TEXTS, source.context_length, encoding=source.encoding)
    return (Case("text", ids, mask, "real token sequences"),)


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
        ids = np.random.default_rng([seed, batch, length]).integers(0, vocab_size, (batch, shown), dtype=np.int64)
        cases.append(Case(f"grid-{batch}x{shown}", ids, np.ones_like(ids), f"shape {batch} x {length}", note))
        used += batch * shown
    return tuple(cases)
