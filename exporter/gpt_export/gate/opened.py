"""One case opened up token by token: what was read, how far off the logits are, and the likeliest next tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt_export.gate.case import Case
from gpt_export.gate.parity import Logits, rounded

POSITIONS = 24
"""How many positions are shown, around the worst one."""

Describe = Callable[[int], str]
"""A token id to its text."""


def open_case(
    target: str,
    case: Case,
    reference: Logits,
    candidate: Logits,
    worst: tuple[int, int, int],
    describe: Describe | None,
) -> dict[str, Any]:
    """JSON values: `target`, `case`, `reason`, `row`, and a list of `tokens`.

    Each token has its `position`, `id`, `text` (null without a tokenizer), the largest `error` of its logits, and the
    five likeliest next tokens of both sides as `[id, text, probability]`.
    """
    row, position, _ = worst
    tokens = np.flatnonzero(case.mask[row])
    at = int(np.searchsorted(tokens, position))
    start = max(0, min(at - POSITIONS // 2, len(tokens) - POSITIONS))
    shown = tokens[start : start + POSITIONS]
    return {
        "target": target,
        "case": case.name,
        "reason": case.reason,
        "row": row,
        "tokens": [
            {
                "position": int(place),
                "id": int(case.ids[row, place]),
                "text": describe(int(case.ids[row, place])) if describe else None,
                "error": rounded(float(np.abs(candidate[row, place] - reference[row, place]).max())),
                "reference": _likeliest(reference[row, place], describe),
                "candidate": _likeliest(candidate[row, place], describe),
            }
            for place in shown
        ],
    }


def _likeliest(logits: NDArray[np.float32], describe: Describe | None) -> list[list[Any]]:
    finite = np.nan_to_num(logits.astype(np.float64), nan=-1e30, posinf=1e30, neginf=-1e30)
    count = min(5, finite.size)
    likeliest = np.argpartition(-finite, count - 1)[:count]
    order = likeliest[np.lexsort((likeliest, -finite[likeliest]))]
    probabilities = np.exp(finite - finite.max())
    probabilities /= probabilities.sum()
    return [[int(i), describe(int(i)) if describe else None, rounded(float(probabilities[i]))] for i in order]
