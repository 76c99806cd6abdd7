from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from benches.decoding.client import WorkerError
from benches.decoding.engine import Generated, Rows
from benches.decoding.rounds import BATCH, DECODE, GROWTH, LONG, MEASURES, PREFILL, SHORT, run_rounds, summarise

ASKED: list[tuple[str, bytes]] = []


@dataclass
class Fake:
    """Half a second to the first token and one for the rest; fails from its so many-th request on."""

    name: str
    fails_at: int = 10**6
    asked: list[tuple[tuple[int, ...], int]] = field(default_factory=list)

    def generate(self, rows: Rows, new: int) -> Generated:
        ASKED.append((self.name, rows.tobytes()))
        self.asked.append((rows.shape, new))
        if len(self.asked) > self.fails_at:
            raise WorkerError(f"{self.name} failed: tired")
        return Generated([[0] * new for _ in rows], 0.5, 1.0)


def test_figures_come_from_shapes_and_times() -> None:
    found, failures = run_rounds([Fake("a")], 2, 100, pause_s=0)
    assert failures == {}
    assert found["a"] == {
        DECODE: [64, 64],
        PREFILL: [500, 500],
        SHORT: [62.5, 62.5],
        LONG: [62.5, 62.5],
        BATCH: [512, 512],
    }
    assert summarise(found["a"])[GROWTH] == {"max": 1.0, "median": 1.0, "min": 1.0}


def test_everyone_gets_the_same_ids_in_turns_and_never_the_same_again() -> None:
    ASKED.clear()
    run_rounds([Fake("a"), Fake("b")], 2, 100, pause_s=0)
    pairs = list(zip(ASKED[::2], ASKED[1::2], strict=True))
    assert len(pairs) == 3 * len(MEASURES)
    assert all(first[1] == second[1] for first, second in pairs)
    assert len({first[1] for first, _ in pairs}) == len(pairs)
    order = [first[0] for first, _ in pairs]
    turns = [set(order[start : start + len(MEASURES)]) for start in range(0, len(order), len(MEASURES))]
    assert turns == [{"b"}, {"a"}, {"b"}]


def test_one_that_fails_is_asked_no_more_and_the_others_go_on() -> None:
    tired = Fake("tired", fails_at=7)
    found, failures = run_rounds([tired, Fake("b")], 2, 100, pause_s=0)
    assert failures == {"tired": "tired failed: tired"}
    assert len(tired.asked) == 8
    assert len(found["b"][BATCH]) == 2


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_every_measure_fits_the_context_of_gpt2(measure: object) -> None:
    assert measure.context + measure.steps + 1 <= 1024 + 1  # type: ignore[attr-defined]
