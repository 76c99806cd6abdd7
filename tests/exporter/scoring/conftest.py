from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from gpt_export.runtime.session import Session
from gpt_export.scoring import crews
from gpt_export.scoring.local import LocalCrew
from gpt_export.scoring.progress import Progress


@pytest.fixture
def killing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Callable[[Progress], None]]]:
    """An `on_progress` that kills a worker process with SIGKILL, so many times; it must have come to that."""
    made: list[LocalCrew] = []
    wanted: list[int] = []
    killed: list[int] = []

    class Seen(LocalCrew):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(crews, "LocalCrew", Seen)

    def killer(times: int) -> Callable[[Progress], None]:
        wanted.append(times)

        def on_progress(_: Progress) -> None:
            if len(killed) < times and made:
                pid = next((pid for pid in made[-1].pids() if pid not in killed), None)
                if pid is not None:
                    killed.append(pid)
                    os.kill(pid, signal.SIGKILL)

        return on_progress

    yield killer
    assert [len(killed)] == wanted or not wanted


def exact_losses(session: Session, ids: list[int]) -> np.ndarray:
    """The loss of each token of a row but the first, float64, from the logits of the whole row."""
    logits = session.logits(np.array([ids]))[0, :-1].astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(ids) - 1), ids[1:]]
