"""The protocol between the bench and its workers, with engines that need no library."""

from __future__ import annotations

import io
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpt_export.runtime.session import Session

from benches.decoding.client import Worker, WorkerError
from benches.decoding.engine import Generated, Rows, generate_by_steps, negative_log_likelihood
from benches.decoding.worker import serve

FAKE = textwrap.dedent(
    """
    import os, sys, types

    class Fake:
        def __init__(self, path, threads):
            print("a library that prints")
            os.write(1, b"and one that writes by itself\\n")

        def generate(self, rows, new):
            from benches.decoding.engine import Generated
            if new > 100:
                sys.exit("out of memory")
            return Generated([[int(row.sum())] * new for row in rows], 0.5, 0.25)

        def score(self, rows):
            raise NotImplementedError("no logits here")

    module = types.ModuleType("benches.decoding.engines.fake")
    module.open_engine = Fake
    sys.modules[module.__name__] = module
    sys.argv = ["worker", "fake", "nowhere", "1"]
    from benches.decoding.worker import main
    main()
    """
)
ROWS = np.array([[1, 2, 3], [4, 5, 6]])


def fake() -> Worker:
    return Worker("fake", [sys.executable, "-c", FAKE], 1)


def test_a_worker_answers_whatever_its_library_prints() -> None:
    with fake() as worker:
        assert worker.load_s >= 0
        assert worker.generate(ROWS, 2) == Generated([[6, 6], [15, 15]], 0.5, 0.25)


def test_a_failed_request_is_told_and_the_worker_lives_on() -> None:
    with fake() as worker:
        with pytest.raises(WorkerError, match="fake failed: NotImplementedError: no logits here"):
            worker.score(ROWS)
        assert worker.generate(ROWS, 1).ids == [[6], [15]]


def test_a_worker_that_ends_is_told_with_its_last_words() -> None:
    with fake() as worker, pytest.raises(WorkerError, match="fake ended: out of memory"):
        worker.generate(ROWS, 101)


def test_a_worker_that_cannot_start_is_told_with_its_last_words() -> None:
    with pytest.raises(WorkerError, match=r"absent ended: ModuleNotFoundError: .*engines\.absent"):
        Worker("absent", [sys.executable, "-m", "benches.decoding.worker", "absent", "nowhere", "1"], 1)


def test_an_unknown_request_is_refused() -> None:
    told: list[dict[str, Any]] = []
    serve(Steps(), io.StringIO(json.dumps({"do": "dance", "ids": [[1]]})), told.append)
    assert told == [{"error": "ValueError: 'dance' is no request; ask for generate or score"}]


class Steps:
    """Says the number of ids so far, by a clock that ticks at every look."""

    def generate(self, rows: Rows, new: int) -> Generated:
        seen = 0
        ticks = iter(range(100))

        def feed(ids: Rows) -> np.ndarray:
            nonlocal seen
            seen += ids.shape[1]
            return np.eye(20, dtype=np.float32)[[seen] * len(ids)]

        return generate_by_steps(feed, rows, new, lambda: float(next(ticks)))

    def score(self, rows: Rows) -> list[float]:
        return [float(len(row)) for row in rows]


def test_generation_by_steps_tells_ids_and_both_times() -> None:
    assert Steps().generate(ROWS, 3) == Generated([[3, 4, 5], [3, 4, 5]], 1.0, 1.0)


def test_the_likelihood_is_that_of_the_next_ids() -> None:
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [1, 1, 1]], dtype=np.float32))
    assert negative_log_likelihood(logits, np.array([0, 1, 2])) == pytest.approx(-np.log(0.25 * 0.8), rel=1e-6)


def test_our_engine_gives_what_the_session_gives(byte_original: Path) -> None:
    command = [sys.executable, "-m", "benches.decoding.worker", "ours", f"{byte_original}#fp32", "1"]
    session = Session.open(byte_original)
    steps = list(session.generate(ROWS, max_new_tokens=4))
    with Worker("ours", command, 1) as worker:
        found = worker.generate(ROWS, 4)
        assert found.ids == np.stack(steps, axis=1).tolist()
        assert found.first_s > 0
        assert found.rest_s > 0
        expected = [negative_log_likelihood(session.logits(row[None])[0], row) for row in ROWS]
        assert worker.score(ROWS) == pytest.approx(expected)
