from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from benches.decoding.client import WorkerError
from benches.decoding.engine import Generated, Rows
from benches.decoding.rounds import (
    BATCH,
    DECODE,
    GROWTH,
    LONG,
    MEASURES,
    MOST_WARMING,
    PREFILL,
    SHORT,
    run_rounds,
    summarise,
    warm,
)

ASKED: list[tuple[str, bytes]] = []


@dataclass
class Fake:
    """Half a second to the first token and one for the rest; fails from its so many-th request on."""

    name: str
    fails_at: int = 10**6
    grows: float = 1.0
    asked: list[tuple[tuple[int, ...], int]] = field(default_factory=list)

    def generate(self, rows: Rows, new: int) -> Generated:
        ASKED.append((self.name, rows.tobytes()))
        self.asked.append((rows.shape, new))
        if len(self.asked) > self.fails_at:
            raise WorkerError(f"{self.name} failed: tired")
        return Generated([[0] * new for _ in rows], 0.5, self.grows ** len(self.asked))


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


def test_everyone_gets_the_same_ids_and_never_the_same_again() -> None:
    ASKED.clear()
    run_rounds([Fake("a"), Fake("b")], 2, 100, pause_s=0)
    by_name = {name: [ids for who, ids in ASKED if who == name] for name in "ab"}
    assert by_name["a"] == by_name["b"]
    assert len(set(by_name["a"])) == len(by_name["a"]) == len(MEASURES) * (1 + 2 * (2 + 1))  # two warm up, one counts


def test_who_begins_changes_from_round_to_round() -> None:
    ASKED.clear()
    run_rounds([Fake("a"), Fake("b")], 2, 100, pause_s=0)
    names = "".join(name for name, _ in ASKED)
    assert names == "ba" * len(MEASURES) + "aaabbb" * len(MEASURES) + "bbbaaa" * len(MEASURES)


def test_warming_ends_when_two_agree_or_after_so_many() -> None:
    rows = np.arange(8)[None]
    assert warm(Fake("steady"), MEASURES[0], rows) == [4, 4]
    assert len(warm(Fake("restless", grows=1.5), MEASURES[0], rows)) == MOST_WARMING


def test_one_that_fails_is_asked_no_more_and_the_others_go_on() -> None:
    tired = Fake("tired", fails_at=7)
    found, failures = run_rounds([tired, Fake("b")], 2, 100, pause_s=0)
    assert failures == {"tired": "tired failed: tired"}
    assert len(tired.asked) == 8
    assert len(found["b"][BATCH]) == 2


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_every_measure_fits_the_context_of_gpt2(measure: object) -> None:
    assert measure.context + measure.steps + 1 <= 1024 + 1  # type: ignore[attr-defined]
