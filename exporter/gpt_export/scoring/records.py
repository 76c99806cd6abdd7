"""A finished part as JSON values: what each of its documents cost, and what the page shows of all of them together.

Everything that a run tells in the end is made of these records, in order; a run that is taken up again reads those that
are there. JSON keeps every digit of a float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from gpt_export_models.tokenizer import Tokenizer
from numpy.typing import NDArray

from gpt_export.scoring.plan import Fragment, Part
from gpt_export.scoring.scoring_work import Row, WindowLoss

BLOCK = 64
"""Tokens that the bootstrap draws together: neighbours are no independent observations."""
BINS = 20
"""Of predicted probability, each as wide."""
WORST = 20
BEFORE = 24
"""Tokens that are told in front of a position."""

Found = Mapping[tuple[int, int], WindowLoss | str]
"""By document and start of the window: its losses, or why there are none."""


def part_record(part: Part, found: Found, window: int, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """The record of a part whose windows are all done."""
    positions, calibration = _Means(window), _Means(BINS)
    hits = np.zeros(BINS)
    fragments, worst = [], []
    for fragment in part.fragments:
        fragments.append(_fragment(fragment, found))
        if fragments[-1]["fault"]:
            continue
        for row in fragment.rows:
            losses = found[row.key]
            assert not isinstance(losses, str)
            positions.add(np.arange(row.window.first, len(row.window.ids)), losses.loss)
            bins = np.minimum((losses.top_probability * BINS).astype(np.int64), BINS - 1)
            calibration.add(bins, losses.top_probability)
            hits += np.bincount(bins, losses.hit, BINS)
            worst += [_worst(fragment, row, losses, i, tokenizer) for i in range(len(losses.worst))]
    worst.sort(key=lambda one: (-one["kl"], one["document"], one["token"]))
    return {
        "part": part.number,
        "digest": part.digest(),
        "documents": fragments,
        "positions": positions.to_dict(),
        "calibration": calibration.to_dict() | {"hits": hits.tolist()},
        "worst": worst[:WORST],
    }


class _Means:
    """Counts and sums by place."""

    def __init__(self, places: int) -> None:
        self._count, self._sum = np.zeros(places), np.zeros(places)

    def add(self, places: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        self._count += np.bincount(places, minlength=len(self._count))
        self._sum += np.bincount(places, values, len(self._sum))

    def to_dict(self) -> dict[str, Any]:
        return {"count": self._count.tolist(), "sum": self._sum.tolist()}


def _fragment(fragment: Fragment, found: Found) -> dict[str, Any]:
    losses = [found[row.key] for row in fragment.rows]
    faults = [one for one in losses if isinstance(one, str)]
    told: dict[str, Any] = {
        "document": fragment.document,
        "name": fragment.name,
        "id": fragment.extra,
        "tokens": fragment.tokens,
        "bytes": fragment.size_bytes,
        "ends": fragment.ends,
        "fault": fragment.fault or (faults[0] if faults else None),
    }
    if told["fault"]:
        return told
    known = [one for one in losses if not isinstance(one, str)]
    told |= {
        "scored": sum(one.loss.size for one in known),
        "nll": math.fsum(value for one in known for value in one.loss.tolist()),
        "blocks": [block for one in known for block in _blocks(one.loss)],
        "windows": [
            [row.window.start, one.loss.size, math.fsum(one.loss.tolist()), _sum(one.reference_loss)]
            for row, one in zip(fragment.rows, known, strict=True)
        ],
    }
    compared = [one for one in known if one.kl is not None]
    if compared:
        told |= {
            "reference_nll": math.fsum(v for one in compared for v in _list(one.reference_loss)),
            "kl": math.fsum(v for one in compared for v in _list(one.kl)),
            "kl_max": max(v for one in compared for v in _list(one.kl)),
            "same": sum(int(one.same.sum()) for one in compared if one.same is not None),
        }
    return told


def _blocks(loss: NDArray[np.float64]) -> list[list[float]]:
    starts = np.arange(0, loss.size, BLOCK)
    sums = np.add.reduceat(loss, starts)
    sizes = np.diff(np.append(starts, loss.size))
    return [[int(size), float(total)] for size, total in zip(sizes, sums, strict=True)]


def _worst(fragment: Fragment, row: Row, losses: WindowLoss, i: int, tokenizer: Tokenizer | None) -> dict[str, Any]:
    position = losses.worst[i]
    at = position.at - (row.window.first - 1)
    ids = row.window.ids.tolist()

    def text(some: list[int]) -> str:
        return tokenizer.decode(some) if tokenizer else " ".join(map(str, some))

    return {
        "document": fragment.document,
        "name": fragment.name,
        "token": row.window.start + position.at + 1,
        "kl": position.kl,
        "loss": float(losses.loss[at]),
        "reference_loss": _list(losses.reference_loss)[at],
        "before": text(ids[max(0, position.at + 1 - BEFORE) : position.at + 1]),
        "next": text([ids[position.at + 1]]),
        "top": text([position.top]),
        "reference_top": text([position.reference_top]),
    }


def _list(values: NDArray[np.float64] | None) -> list[float]:
    return [] if values is None else values.tolist()


def _sum(values: NDArray[np.float64] | None) -> float | None:
    return None if values is None else math.fsum(values.tolist())
