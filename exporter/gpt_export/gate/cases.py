"""What is run through both models: tokenized text, a grid of shapes, and for a cache every way of feeding it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
from gpt_export_models.tokenizer import pad
from numpy.typing import NDArray

from gpt_export.errors import ConfigError
from gpt_export.gate.case import Case, Need
from gpt_export.gate.settings import GateSettings
from gpt_export.gate.text_cases import text_cases
from gpt_export.gate.turn_cases import turn_cases
from gpt_export.runtime.signature import CacheShape
from gpt_export.sources.source import Source

GRID_BATCHES = (1, 2, 5)
GRID_SEQUENCES = (1, 2, 17)
"""Besides these, the context length."""
DEFAULT_POSITIONS = 1000
"""With more of them the default set leaves batches of rows as long as the context out."""
WHOLE_CONTEXT = 2048
"""Up to this length one row is run to the end of the context, whatever other cases have taken."""
CASE_BYTES = 256 * 1024 * 1024
"""In the default set no case has more logits than this, whatever the vocabulary."""
FULL_CASE_BYTES = 2 * 1024 * 1024 * 1024
"""The same for the full set: with GPT-2's vocabulary 10,000 positions at once."""
PADDED_LENGTHS = (6, 1, 2)
"""Of lengths that other cases run, so that the reference has run these rows already."""
LENGTH = 17
PAIRED = 64
"""Tokens of two rows that stand for all batches of rows longer than `LENGTH` where these are left out."""
UNUSUAL = 6
"""Tokens of the rows of unusual ids."""
STEPS = 6
"""Tokens that a cache is fed one by one from its beginning; the others are fed behind what came in one piece."""
LAST_ALONE = 2
"""Tokens at the end of the context that a cache is fed one by one."""
LARGEST_CACHE_BYTES = 1024 * 1024 * 1024
"""No cache larger than this is filled for the sake of its end, in float32."""


def choose_cases(source: Source, settings: GateSettings, *, whole_text: bool = True) -> tuple[Case, ...]:
    """The cases that the settings ask for.

    They are the texts where the model has a tokenizer, the ways of feeding a cache where the graph has one, across
    every length at which it does something new, and the shape grid. Cases share rows where they can: the reference
    runs each row once.

    Args:
        whole_text: whether something is judged by what it does to the next token of a text, which takes many tokens.
            Float32 is judged by its numbers, of which a few tokens have enough.

    Raises:
        ConfigError: texts were given for a model without a tokenizer.
        TextError: a text gives no token, or more than the context holds.
    """
    texts = text_cases(source, settings, whole=whole_text or settings.full)
    cases = (*texts, *id_cases(source.context_length, source.vocab_size))
    if source.cache:
        cases += cache_cases(source.context_length, source.vocab_size, seed=settings.seed)
        cases += end_cases(source.context_length, source.vocab_size, source.cache, seed=settings.seed)
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
    """A row of one id over and over, and one of the first and last ids of the vocabulary in turn."""
    length = min(UNUSUAL, context_length)
    repeated = np.full((1, length), vocab_size // 2, dtype=np.int64)
    extreme = np.tile(np.array([[0, vocab_size - 1]]), length)[:, :length]
    return (
        _case("ids-repeated", repeated, "one id over and over"),
        _case("ids-extreme", extreme, "the first and last ids of the vocabulary"),
    )


def cache_cases(context_length: int, vocab_size: int, *, seed: int = 0) -> tuple[Case, ...]:
    """Cases that feed a cache token by token, in chunks, and with padding on either side.

    Each is compared with eager in one pass over every row alone, so that a cached step equals an uncached one, a
    chunk its place in the whole, and a padded row the same row without padding. Every greedy choice along the way is
    the reference's too: `CaseResult.top1_agreement` says so, near-ties told apart.
    """
    length, steps = min(LENGTH, context_length), min(STEPS, context_length)
    drawn = _rows(vocab_size, seed, range(4), length)
    padded = [drawn[i, : min(n, length)].tolist() for i, n in zip((2, 1, 3), PADDED_LENGTHS, strict=True)]
    ends = sorted({min(cut, length) for cut in (5, 6, LENGTH)})
    chunks = tuple(int(size) for size in np.diff([0, *ends]))
    left, right = pad(padded, side="left", pad_id=0), pad(padded, pad_id=0)
    stepped = np.ascontiguousarray(drawn[2:4, :steps])
    return (
        _case("cache-steps", stepped, "a cached step equals an uncached one", chunks=(1,) * steps, needs="cache"),
        _case("cache-chunks", drawn[:2], "prefill in chunks equals one pass", chunks=chunks, needs="cache"),
        Case("pad-left", *left, "a left-padded row equals the row alone", needs="mask"),
        Case("pad-right", *right, "a right-padded row equals the row alone", needs="mask"),
        Case(
            "pad-left-chunks",
            *left,
            "padding in the past is not looked at",
            chunks=_halves(left[0].shape[1]),
            needs="cache",
        ),
    )


def end_cases(context_length: int, vocab_size: int, cache: CacheShape, *, seed: int = 0) -> tuple[Case, ...]:
    """The last two slots of a cache that is as long as the context, behind nothing but padding.

    It reaches the end of every buffer and mask for the price of two tokens; that of the positions is another matter.
    """
    length = min(LAST_ALONE, context_length)
    behind = context_length - length
    bytes_a_slot = 4 * sum(heads * width for _, heads, _, width in cache.empty_shapes(1).values())
    if not behind or context_length * bytes_a_slot > LARGEST_CACHE_BYTES:
        return ()
    ids = _rows(vocab_size, seed, range(1), length)
    reason = "the last slots of a cache, behind padding"
    return (_case("cache-end", ids, reason, chunks=(1,) * length, needs="cache", behind=behind),)


def grid_cases(
    context_length: int, vocab_size: int, *, full: bool = False, seed: int = 0, spent: int = 0
) -> tuple[Case, ...]:
    """Seeded random ids for each batch size and length, the last length being the context.

    Of the default set batches of long rows are left out where all cases together, with the `spent` positions of
    others, would pass `DEFAULT_POSITIONS`; a single row runs to the end of the context however much else there is. The
    note of a row that does not says what it stands for.
    """
    lengths = sorted({min(length, context_length) for length in (*GRID_SEQUENCES, context_length)})
    used = spent
    cases: dict[str, Case] = {}
    for length in lengths:
        for batch in GRID_BATCHES:
            fits = (FULL_CASE_BYTES if full else CASE_BYTES) // (4 * vocab_size * batch)
            shown = max(1, min(length, fits if full else min(fits, WHOLE_CONTEXT)))
            if (
                batch > 1
                and length > LENGTH
                and not full
                and (shown < length or used + batch * length > DEFAULT_POSITIONS)
            ):
                continue
            whole = "more logits than memory is kept for" if full else "the full set runs it whole"
            note = "" if shown == length else f"stands for {batch} x {length}; {whole}"
            case = grid_case(vocab_size, batch, shown, seed, note)
            if case.name not in cases:
                cases[case.name] = case
                used += case.positions
    if not full and context_length > PAIRED:  # long rows side by side, which a single one to the end says nothing of
        pair = grid_case(vocab_size, 2, PAIRED, seed)
        cases.setdefault(pair.name, pair)
    return tuple(cases.values())


def grid_case(vocab_size: int, batch: int, sequence: int, seed: int, note: str = "") -> Case:
    """Seeded random ids of one shape; those of shorter rows are the first of longer ones."""
    ids = _rows(vocab_size, seed, range(batch), sequence)
    return _case(f"grid-{batch}x{sequence}", ids, f"shape {batch} x {sequence}", note)


def _to_the_end(case: Case, context_length: int) -> Case:
    """`case`, whose last two tokens a cache is fed alone if it is a single row that fills the context."""
    if case.ids.shape != (1, context_length) or context_length < LAST_ALONE + 1:
        return case
    chunks = (context_length - LAST_ALONE, *(1,) * LAST_ALONE)
    return replace(case, reason=f"{case.reason}, the end of the context", chunks=chunks)


def _drawn(source: Source, seed: int) -> Callable[[int, int], NDArray[np.int64]]:
    return lambda row, length: _ids(source.vocab_size, (seed, 4, row), (1, length))


def _case(
    name: str,
    ids: NDArray[np.int64],
    reason: str,
    note: str = "",
    *,
    chunks: tuple[int, ...] = (),
    needs: Need = "ids",
    behind: int = 0,
) -> Case:
    """A case of rows without padding."""
    return Case(name, ids, np.ones_like(ids), reason, note, chunks=chunks, needs=needs, behind=behind)


def _halves(length: int) -> tuple[int, ...]:
    return (length,) if length < 2 else (length // 2, length - length // 2)


def _rows(vocab_size: int, seed: int, rows: Iterable[int], length: int) -> NDArray[np.int64]:
    """The first ids of each of the numbered rows, (rows, length)."""
    return np.concatenate([_ids(vocab_size, (seed, row), (1, length)) for row in rows])


def _ids(vocab_size: int, seed: tuple[int, ...], shape: tuple[int, ...]) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, vocab_size, shape, dtype=np.int64)
