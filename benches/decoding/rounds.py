"""What is asked of every worker, in which order, and what becomes of the answers."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from benches.decoding.client import WorkerError
from benches.decoding.engine import Generated, Rows
from benches.record import spread

PAUSE_S = 0.3
"""Between two workers: threads that still wait for work in one must not take a core from the next."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One request: rows of so many ids, continued by so many steps, and the figure that its times give."""

    name: str
    batch: int
    context: int
    steps: int
    figure: Callable[[Measure, Generated], float]


def prefill_ms(_measure: Measure, found: Generated) -> float:
    return found.first_s * 1e3


def tokens_s(measure: Measure, found: Generated) -> float:
    """Of all rows together; the first token, which is the prompt's, does not count."""
    return measure.batch * measure.steps / found.rest_s


def step_ms(measure: Measure, found: Generated) -> float:
    return found.rest_s / measure.steps * 1e3


DECODE, PREFILL, BATCH, SHORT, LONG = "decode_tok_s", "prefill_512_ms", "batch_16_tok_s", "step_32_ms", "step_1000_ms"
MEASURES = (
    Measure(DECODE, 1, 128, 64, tokens_s),
    Measure(PREFILL, 1, 512, 0, prefill_ms),
    Measure(SHORT, 1, 32, 16, step_ms),
    Measure(LONG, 1, 1000, 16, step_ms),
    Measure(BATCH, 16, 128, 32, tokens_s),
)
GROWTH = "growth"
"""The step at 1000 tokens over the step at 32."""


STEADY, MOST_WARMING, WARMING_STEPS = 0.05, 6, 4
"""Two steps of warming that differ by no more than this end it, or so many of them; so many new ids a time."""


class Asked(Protocol):
    """A worker, or what stands in for one in a test."""

    name: str

    def generate(self, rows: Rows, new: int) -> Generated: ...


def run_rounds(
    workers: Sequence[Asked], rounds: int, vocabulary: int, seed: int = 0, pause_s: float = PAUSE_S
) -> tuple[dict[str, dict[str, list[float]]], dict[str, str]]:
    """By worker and measure the figure of each round, and by worker why it failed, if it did.

    In a round every measure goes to every worker, forwards in one round and backwards in the next, with the same ids
    for all and new ones every time. Each is warmed directly before it counts (`warm`): memory that idled while others
    ran may have been handed back to the machine. A worker that failed is asked no more.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, dict[str, list[float]]] = {worker.name: {} for worker in workers}
    failures: dict[str, str] = {}
    for turn in range(-1, rounds):  # the first one warms up and does not count
        for measure in MEASURES:
            rows, warming = rng.integers(0, vocabulary, (2, measure.batch, measure.context))
            steps = measure.steps if turn >= 0 else min(measure.steps, 2)
            for worker in workers if turn % 2 == 0 else workers[::-1]:
                if worker.name in failures:
                    continue
                time.sleep(pause_s)
                try:
                    if turn >= 0:
                        warm(worker, measure, warming)
                    answer = worker.generate(rows, steps + 1)
                except WorkerError as error:
                    failures[worker.name] = str(error)
                    continue
                if turn >= 0:
                    figures = found[worker.name].setdefault(measure.name, [])
                    figures.append(measure.figure(measure, answer))
        print(f"round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
    return found, failures


def warm(worker: Asked, measure: Measure, rows: Rows) -> list[float]:
    """The figures of a worker asked for `measure` with few steps, again and again until two agree to `STEADY`.

    Raises:
        WorkerError: the worker ended or failed.
    """
    few = replace(measure, steps=min(measure.steps, WARMING_STEPS))
    found: list[float] = []
    while len(found) < MOST_WARMING:
        shifted = np.roll(rows, len(found), axis=1)  # new prefixes, for who keeps those that were seen
        found.append(few.figure(few, worker.generate(shifted, few.steps + 1)))
        if len(found) > 1 and abs(found[-1] / found[-2] - 1) <= STEADY:
            break
    return found


def summarise(figures: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """The spread of each measure, and of growth from round to round."""
    values = {name: spread(list(runs)) for name, runs in figures.items()}
    if SHORT in figures and LONG in figures:
        pairs = zip(figures[SHORT], figures[LONG], strict=True)
        values[GROWTH] = spread([long / short for short, long in pairs])
    return values
