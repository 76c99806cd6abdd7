"""The lengths at which attention does something new: a window begins to hide tokens, a bucket of distances begins.

They are found by evaluating: random scores are weighed at the longest length that the constants make worth looking at,
and a token that no later row looks at any more has been left behind. A length that is too long to evaluate, or that
positions are compared with, is reported as it stands: the gate steps across it either way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gpt_export.passes.cache.attentions import Attention
from gpt_export.passes.cache.checks import Plan, Trial, spelling
from gpt_export.passes.cache.interpreter import Meaning
from gpt_export.passes.cache.lengths import compared_lengths
from gpt_export.passes.cache.tables import Use

Array = np.ndarray[Any, Any]
_PAST_IT = 6
"""How far beyond a length it is looked at, so that what changes there shows in several rows."""
_SURE_ROWS = 5
"""A token counts as left behind if at least so many rows have not looked at it: a ReLU hides one by chance."""
_CHEAP = 256
"""A length that is tried whatever the constants are, if the context holds it."""
_VISIBLE = 1e-12
"""A weight that was less when last seen has faded away (ALiBi), and was not cut off."""
_MOST = 8
"""Of one attention; a pattern with more of them is stepped across at its first ones and its last."""


def find_turns(meaning: Meaning, plans: Mapping[Attention, Plan], uses: Sequence[Use]) -> tuple[int, ...]:
    """The lengths, in order: at each, one token more does what none before it did.

    What a plan takes the mask to be is believed only beside what the graph itself does.
    """
    found = compared_lengths(meaning, {use.value for use in uses})
    found |= {plan.band.window for plan in plans.values() if plan.band is not None and plan.band.window is not None}
    alike = {spelling(meaning, attention): attention for attention in plans}
    for attention in alike.values():
        found |= _turns_of(Trial(meaning, attention, uses), meaning.longest)
    return tuple(sorted(length for length in found if 1 < length <= meaning.longest))


def _turns_of(trial: Trial, longest: int) -> set[int]:
    """Those of one attention, and the candidates that are too long to try."""
    candidates = trial.candidates()
    longer = {length for length in candidates if not trial.fits(length + _PAST_IT)}
    for length in _tried(trial, candidates - longer, longest):
        weights = trial.weights(trial.random(length), length)
        if weights is not None:  # else a mask that is a buffer has ended before it
            return longer | set(_fewer(sorted(left_behind(trial.by_row(weights)))))
    return longer


def _tried(trial: Trial, candidates: set[int], longest: int) -> list[int]:
    """Lengths to try, the longest first: blocks that see each other turn at a multiple of the candidate."""
    lengths = {tried for each in candidates for tried in (2 * each + _PAST_IT, each + _PAST_IT, each)}
    return sorted((each for each in {min(longest, _CHEAP), *lengths} if trial.fits(each)), reverse=True)


def left_behind(weights: Array) -> set[int]:
    """The rows at which tokens are left behind, the first for each distance; `weights` is (heads, rows, columns)."""
    found: dict[int, int] = {}
    count = weights.shape[1]
    for head in np.abs(weights):
        seen = head > 0
        last = count - 1 - seen[::-1].argmax(axis=0)
        for column in np.flatnonzero(seen.any(axis=0) & (last < count - _SURE_ROWS)):
            row = int(last[column]) + 1
            if head[row - 1, column] > _VISIBLE:
                distance = row - int(column)
                found[distance] = min(row, found.get(distance, row))
    return set(found.values())


def _fewer(lengths: Sequence[int]) -> Iterable[int]:
    half = _MOST // 2
    return lengths if len(lengths) <= _MOST else (*lengths[:half], *lengths[-half:])
