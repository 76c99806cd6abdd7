"""What is run through both models: tokenized text, a grid of shapes, and for a cache every way of feeding it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from gpt_export_models.tokenizer import pad
from numpy.typing import NDArray

from gpt_export.errors import ConfigError
from gpt_export.gate.case import Case
from gpt_export.gate.settings import GateSettings
from gpt_export.gate.text_cases import text_cases
from gpt_export.gate.turn_cases import turn_cases
from gpt_export.sources.source import Source

GRID_BATCHES = (1, 2, 5)
GRID_SEQUENCES = (1, 2, 17)
"""Besides these, the context length."""
DEFAULT_POSITIONS = 2000
WHOLE_CONTEXT = 2048
"""Up to this length one row is run to the end of the context, whatever other cases have taken."""
KEPT_FOR_BATCHES = 70
"""Positions of the default set that one long row leaves to the batches of long rows."""
CASE_BYTES = 256 * 1024 * 1024
"""In the default set no case has more logits than this, whatever the vocabulary."""
FULL_CASE_BYTES = 2 * 1024 * 1024 * 1024
"""The same for the full set: with GPT-2's vocabulary 10,000 positions at once."""
PADDED_LENGTHS = (17, 1, 6)
STEPS = 17
LAST_ALONE = 2
"""Tokens at the end of the context that a cache is fed one by one."""


def choose_cases(source: Source, settings: GateSettings) -> tuple[Case, ...]:
    """The cases that the settings ask for.

    They are the texts where the model has a tokenizer, the ways of feeding a cache where the graph has one, across
    every length at which it does something new, and the shape grid.

    Raises:
        ConfigError: texts were given for a model without a tokenizer.
        TextError: a text gives no token, or more than the context holds.
    """
    cases = (*text_cases(source, settings), *id_cases(source.context_length, source.vocab_size))
    if source.cache:
        cases += cache_cases(source.context_length, source.vocab_size, seed=settings.seed)
        cases += turn_cases(source.turns, source.context_length, source.vocab_size, _drawn(source, settings.seed))
    spent = sum(case.positions for case in cases)
    grid = grid_cases(source.context_length, source.vocab_size, full=settings.full, seed=settings.seed, spent=spent)
    if source.cache:
        grid = tuple(_to_the_end(case, source.context_length) for case in grid)
    chosen = select((*cases, *grid), settings.cases)
    if source.answers.positions == "all":
        return chosen
    return tuple(replace(case, by_prefix=True) for case in chosen)


def select(cases: tuple[Case, ...], names: tuple[str, ...]) -> tuple[Case, ...]:
    """The cases of a set, or those whose names are given (`grid` stands for all that begin with it).

    Raises:
        ConfigError: a name is not among the cases; the message has those that are.
    """
    known = [case.name for case in cases]
    wanted = {name: {case for case in known if case == name or case.startswith(f"{name}-")} for name in names}
    sets = {"default", "full"} & wanted.keys()
    if missing := [name for name, found in wanted.items() if not found and name not in sets]:
        raise ConfigError(f"there is no case {', '.join(missing)}; choose default, full, or of {', '.join(known)}")
    chosen = set().union(*wanted.values())
    return cases if sets else tuple(case for case in cases if case.name in chosen)


def id_cases(context_length: int, vocab_size: int) -> tuple[Case, ...]:
    """One id over and over, and the first and last ids of the vocabulary in turn."""
    length = min(STEPS, context_length)
    repeated = np.full((1, length), vocab_size // 2, dtype=np.int64)
    extreme = np.tile(np.array([[0, vocab_size - 1]]), length)[:, :length]
    return (
        Case("ids-repeated", repeated, np.ones_like(repeated), "one id over and over"),
        Case("ids-extreme", extreme, np.ones_like(extreme), "the first and last ids of the vocabulary"),
    )


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
    context_length: int, vocab_size: int, *, full: bool = False, seed: int = 0, spent: int = 0
) -> tuple[Case, ...]:
    """Seeded random ids for each batch size and length, the last length being the context.

    In the default set the large corners shrink so that all cases together, with the `spent` positions of others, stay
    near `DEFAULT_POSITIONS`; the note of a shrunk case says what it stands for.
    """
    lengths = sorted({min(length, context_length) for length in (*GRID_SEQUENCES, context_length)})
    shapes = [(batch, length) for length in lengths for batch in GRID_BATCHES]
    used = spent
    cases: list[Case] = []
    for i, (batch, length) in enumerate(shapes):
        fits = (FULL_CASE_BYTES if full else CASE_BYTES) // (4 * vocab_size * batch)
        left = max(0, DEFAULT_POSITIONS - used)
        share = length * batch if full else left // (len(shapes) - i)
        if batch == 1 and not full:  # the end of the context is in the default set however much else there is
            share = max(left - KEPT_FOR_BATCHES, WHOLE_CONTEXT)
        shown = max(1, min(length, share // batch, fits))
        whole = "more logits than memory is kept for" if full else "the full set runs it whole"
        note = "" if shown == length else f"stands for {batch} x {length}; {whole}"
        case = grid_case(vocab_size, batch, shown, seed, note)
        if case.name not in {other.name for other in cases}:
            cases.append(case)
            used += case.positions
    return tuple(cases)


def grid_case(vocab_size: int, batch: int, sequence: int, seed: int, note: str = "") -> Case:
    """Seeded random ids of one shape."""
    ids = _ids(vocab_size, (seed, batch, sequence), (batch, sequence))
    return Case(f"grid-{batch}x{sequence}", ids, np.ones_like(ids), f"shape {batch} x {sequence}", note)


def _to_the_end(case: Case, context_length: int) -> Case:
    """`case`, whose last two tokens a cache is fed alone if it is a single row that fills the context."""
    if case.ids.shape != (1, context_length) or context_length < LAST_ALONE + 1:
        return case
    chunks = (context_length - LAST_ALONE, *(1,) * LAST_ALONE)
    return replace(case, reason=f"{case.reason}, the end of the context", chunks=chunks)


def _drawn(source: Source, seed: int) -> Callable[[int, int], NDArray[np.int64]]:
    return lambda row, length: _ids(source.vocab_size, (seed, 4, row), (1, length))


def _whole(name: str, ids: NDArray[np.int64], reason: str, chunks: tuple[int, ...]) -> Case:
    return Case(name, ids, np.ones_like(ids), reason, chunks=chunks, needs="cache")


def _halves(length: int) -> tuple[int, ...]:
    return (length,) if length < 2 else (length // 2, length - length // 2)


def _ids(vocab_size: int, seed: tuple[int, ...], shape: tuple[int, ...]) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, vocab_size, shape, dtype=np.int64)
