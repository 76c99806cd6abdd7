"""Cached cases that step across the lengths at which a model does something new: windows, blocks, the end of buckets.

Seventeen steps behind an empty past prove nothing of a window of 512. Each case is one text that is long enough for
every turn; between turns it is fed at once, around them in small pieces.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from gpt_export_models.tokenizer import pad
from numpy.typing import NDArray

from gpt_export.gate.case import Case

PADDING = 5
"""Tokens that one row is shorter than the other, and padded with on the left."""
AROUND = range(-1, 4)
"""Where pieces end, from a turn: the tokens around it are fed alone, the last one before it and three behind."""
PIECES = (5, 1, 1, 9, 1, 13)
"""What a text is fed in around a turn, so that a large piece straddles it."""
BEFORE = 20
"""How far in front of a turn those pieces begin."""
BEHIND = sum(PIECES) - BEFORE
BUDGET = 2000
"""Positions up to which every case is run; beyond it the first alone, which tells the most."""
LARGEST_BYTES = 2 * 1024 * 1024 * 1024
"""Of the logits of one case; a turn that lies further is not reached, and the case's note says so."""

Draw = Callable[[int, int], NDArray[np.int64]]
"""Ids (1, length) of a row, by its number and length."""


def turn_cases(turns: Sequence[int], context_length: int, vocab_size: int, draw: Draw) -> tuple[Case, ...]:
    """Cases across each of `turns` that lies within the context, the end of which other cases reach."""
    inside = [turn for turn in turns if 1 < turn < context_length]
    fits = LARGEST_BYTES // (4 * vocab_size) - PADDING - BEHIND
    reached = [turn for turn in inside if turn < fits]
    if not reached:
        return ()
    missed = ", ".join(str(turn) for turn in inside if turn >= fits)
    note = f"{missed} is not reached: more logits than memory is kept for" if missed else ""
    why = f"every length at which attention does something new, {', '.join(map(str, reached))}"
    end = min(context_length, reached[-1] + AROUND[-1] + PADDING)
    chosen: list[Case] = []
    spent = 0
    for case in _cases(reached, end, context_length, draw, why, note):
        if not chosen or spent + case.positions <= BUDGET:
            chosen.append(case)
            spent += case.positions
    return tuple(chosen)


def _cases(turns: Sequence[int], end: int, context_length: int, draw: Draw, why: str, note: str) -> Iterator[Case]:
    """All of them, those that tell the most first."""
    shorter = end - min(PADDING, max(1, end - turns[-1] - 1))
    rows = [draw(0, end), draw(1, shorter)] if 2 * end <= BUDGET else [draw(0, end)]
    yield _padded(turns, rows, f"{why}: token by token, and behind padding", note)
    longer = min(context_length, turns[-1] + BEHIND)
    ids = draw(2, longer)
    cuts = [cut for turn in turns for cut in itertools.accumulate(PIECES, initial=max(0, turn - BEFORE))]
    yield Case("cache-turns-pieces", ids, np.ones_like(ids), f"{why}: in pieces", note, _chunks(cuts, longer), "cache")
    ids = draw(3, end)
    cuts = [turn + step for turn in turns for step in AROUND]
    yield Case("cache-turns", ids, np.ones_like(ids), f"{why}: token by token", note, _chunks(cuts, end), "cache")


def _padded(turns: Sequence[int], rows: Sequence[NDArray[np.int64]], why: str, note: str) -> Case:
    """The rows side by side, all but the longest padded on the left; a row alone is padded too."""
    if len(rows) == 1:
        ids = np.concatenate([np.zeros((1, PADDING), np.int64), rows[0]], axis=1)
        mask = (np.arange(ids.shape[1]) >= PADDING).astype(np.int64)[None]
    else:
        ids, mask = pad([row[0].tolist() for row in rows], side="left", pad_id=0)
    shifts = {int(count) for count in (mask == 0).sum(axis=1)}
    cuts = [turn + shift + step for turn in turns for shift in shifts for step in AROUND]
    return Case("pad-left-turns", ids, mask, why, note, _chunks(cuts, ids.shape[1]), "cache")


def _chunks(cuts: Sequence[int], length: int) -> tuple[int, ...]:
    """The pieces of a text that is cut there."""
    ends = sorted({0, length, *(cut for cut in cuts if 0 < cut < length)})
    return tuple(stop - start for start, stop in itertools.pairwise(ends))
