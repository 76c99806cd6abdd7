"""Workers that die, fail, or never start, without a model; and with real processes that are killed."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from gpt_export.errors import EngineError, InputError
from gpt_export.scoring.dispatch import Event, dispatch
from gpt_export.scoring.local import LocalCrew
from gpt_export.scoring.piece import Outcome, Piece


def piece(*documents: int) -> Piece:
    return Piece(part=0, rows=[f"row of {one}" for one in documents], documents=documents)


class Fake:
    """Three workers; a row that `behave` says dies takes its worker along."""

    def __init__(self, behave: Callable[[Sequence[Any], int], str]) -> None:
        self._behave, self._given = behave, dict[int, Sequence[Any]]()
        self.tries: list[tuple[Any, ...]] = []
        self._next = 3
        self._workers = [0, 1, 2]
        self._random = random.Random(0)

    def idle(self) -> list[int]:
        return [worker for worker in self._workers if worker not in self._given]

    def give(self, worker: Any, rows: Sequence[Any]) -> None:
        self._given[worker] = rows

    def wait(self) -> list[Event]:
        worker = self._random.choice(sorted(self._given))
        rows = self._given.pop(worker)
        self.tries.append(tuple(rows))
        how = self._behave(rows, len(self.tries))
        if how == "die":
            self._workers.remove(worker)
            self._workers.append(self._next)
            self._next += 1
            return [Event(worker, fault="killed by SIGKILL", dead=True)]
        return [Event(worker, fault="ValueError: no") if how == "fail" else Event(worker, results=[*rows])]

    def close(self) -> None: ...


def outcomes(crew: Any, pieces: Sequence[Piece]) -> dict[int, Outcome]:
    found: dict[int, Outcome] = {}
    for outcome in dispatch(crew, pieces):
        for document in outcome.piece.documents:
            assert document not in found
            found[document] = outcome
    return found


def test_a_piece_whose_worker_died_once_is_done_again_as_it_was() -> None:
    crew = Fake(lambda _, tries: "die" if tries == 1 else "done")
    found = outcomes(crew, [piece(0, 1), piece(2, 3), piece(4)])
    assert sorted(found) == [0, 1, 2, 3, 4]
    assert not any(outcome.fault for outcome in found.values())
    assert all(len(rows) in (1, 2) for rows in crew.tries)
    assert crew.tries.count(crew.tries[0]) == 2


def test_the_document_over_which_three_workers_die_fails_alone() -> None:
    crew = Fake(lambda rows, _: "die" if "row of 1" in rows else "done")
    found = outcomes(crew, [piece(0, 1, 2), piece(3)])
    assert [document for document, outcome in found.items() if outcome.fault] == [1]
    assert "3 workers died" in str(found[1].fault)
    assert sum("row of 1" in rows for rows in crew.tries) == 3


def test_an_error_is_that_of_its_document_alone() -> None:
    found = outcomes(Fake(lambda rows, _: "fail" if "row of 2" in rows else "done"), [piece(0, 1, 2)])
    assert {document: outcome.fault for document, outcome in found.items()} == {0: None, 1: None, 2: "ValueError: no"}


def test_a_piece_is_asked_for_when_a_worker_is_idle() -> None:
    crew, asked = Fake(lambda *_: "done"), []

    def pieces() -> Any:
        for number in range(50):
            asked.append(number)
            yield piece(number)

    for done, _ in enumerate(dispatch(crew, pieces()), 1):
        assert len(asked) <= done + 3


@dataclass(frozen=True)
class Upper:
    """Work for real processes: texts in capitals, apart from some that kill their worker."""

    refusal: str = ""
    dies: str = ""
    once: Path | None = None
    broken: bool = False
    cause: dict[str, str] = field(default_factory=dict)

    def open(self) -> Callable[[Sequence[str]], list[str]]:
        if self.refusal:
            raise InputError(self.refusal)
        if self.broken:
            raise RuntimeError("no such library")
        return self._work

    def _work(self, rows: Sequence[str]) -> list[str]:
        for row in rows:
            if row == self.dies and not (self.once and self.once.exists()):
                if self.once:
                    self.once.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if row == "wrong":
                raise ValueError("a wrong row")
        return [row.upper() for row in rows]


def run(setup: Upper, *rows: str, workers: int = 2) -> dict[str, str]:
    crew = LocalCrew(setup, workers, 1)
    try:
        pieces = [Piece(part=0, rows=[row], documents=(number,)) for number, row in enumerate(rows)]
        return {
            outcome.piece.rows[0]: outcome.results[0] if outcome.results else str(outcome.fault)
            for outcome in dispatch(crew, pieces)
        }
    finally:
        crew.close()


def test_processes_that_are_killed_are_replaced(tmp_path: Path) -> None:
    found = run(Upper(dies="b", once=tmp_path / "died"), "a", "b", "wrong", "c")
    assert found == {"a": "A", "b": "B", "wrong": "ValueError: a wrong row", "c": "C"}
    assert (tmp_path / "died").exists()


def test_a_row_that_kills_every_process_fails() -> None:
    found = run(Upper(dies="b"), "a", "b", "c")
    assert found["b"] == "3 workers died over it, the last one: killed by SIGKILL"
    assert (found["a"], found["c"]) == ("A", "C")


def test_a_refusal_ends_the_run_as_what_it_is() -> None:
    with pytest.raises(InputError, match="not this artifact"):
        run(Upper(refusal="not this artifact"), "a", workers=1)


def test_workers_that_never_start_end_the_run_with_what_they_said() -> None:
    with pytest.raises(EngineError, match=r"3 worker processes ended before they were ready.*no such library"):
        run(Upper(broken=True), "a", workers=1)
