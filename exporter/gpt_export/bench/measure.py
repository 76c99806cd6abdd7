"""Times of one session, as an application sees them: `Session.generate`, from the call to the token.

Every measurement draws ids of its own, so that nothing can be remembered from the one before.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt_export.bench.plan import Plan
from gpt_export.runtime.session import Session

WARM_UP = 1
"""Runs of each measurement that are not counted: the first one allocates."""
MILLI = 1e3


def measure(session: Session, plan: Plan, seed: int = 0) -> dict[str, Any]:
    """`prefill_ms` by length, `decode_tok_s` by batch (rows together) and `growth`, in JSON values."""
    rng = np.random.default_rng(seed)

    def repeated(once: Callable[[NDArray[np.int64]], float], batch: int, length: int) -> dict[str, float]:
        times = [once(rng.integers(0, session.vocab_size, (batch, length))) for _ in range(WARM_UP + plan.repeats)]
        return spread(times[WARM_UP:])

    def tok_s(ids: NDArray[np.int64]) -> float:
        return len(ids) * plan.new_tokens / decode_seconds(session, ids, plan.new_tokens)

    def step_ms(ids: NDArray[np.int64]) -> float:
        return decode_seconds(session, ids, plan.growth_tokens) / plan.growth_tokens * MILLI

    growth = {str(length): repeated(step_ms, 1, length) for length in plan.growth}
    medians = [step["median"] for step in growth.values()]
    return {
        "prefill_ms": {
            str(length): repeated(lambda ids: first_token_seconds(session, ids) * MILLI, 1, length)
            for length in plan.prefill
        },
        "decode_tok_s": {str(batch): repeated(tok_s, batch, plan.decode_context) for batch in plan.batches},
        "growth": {"step_ms": growth, "ratio": round(medians[-1] / medians[0], 3)},
    }


def first_token_seconds(session: Session, ids: NDArray[np.int64]) -> float:
    """Seconds from a prompt, int64 (batch, sequence), to the token after it."""
    started = time.perf_counter()
    for _ in session.generate(ids, max_new_tokens=1):
        pass
    return time.perf_counter() - started


def decode_seconds(session: Session, ids: NDArray[np.int64], new_tokens: int) -> float:
    """Seconds that so many steps take after a prompt; the prompt and the token after it are not counted."""
    steps = session.generate(ids, max_new_tokens=new_tokens + 1)
    next(steps)
    started = time.perf_counter()
    for _ in steps:
        pass
    return time.perf_counter() - started


def spread(values: Sequence[float]) -> dict[str, float]:
    """`median`, `min` and `max` of repeated measurements."""
    return {"median": _short(statistics.median(values)), "min": _short(min(values)), "max": _short(max(values))}


def _short(value: float) -> float:
    return float(f"{value:.5g}")
