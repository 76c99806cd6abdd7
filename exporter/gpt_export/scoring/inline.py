"""No worker but this process: what the others' results are compared with."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from gpt_export.scoring.dispatch import Event
from gpt_export.scoring.piece import Setup


class InlineCrew:
    """Works when it is waited for. See `Crew`."""

    def __init__(self, setup: Setup) -> None:
        self._work = setup.open()
        self._rows: Sequence[Any] | None = None

    def idle(self) -> list[Hashable]:
        """See `Crew.idle`."""
        return [0] if self._rows is None else []

    def give(self, worker: Hashable, rows: Sequence[Any]) -> None:  # noqa: ARG002 - there is but one
        """See `Crew.give`."""
        self._rows = rows

    def wait(self) -> list[Event]:
        """See `Crew.wait`."""
        rows, self._rows = self._rows, None
        try:
            return [Event(0, results=self._work(rows or ()))]
        except Exception as error:  # as a worker process tells it
            return [Event(0, fault=f"{type(error).__name__}: {' '.join(str(error).split())}")]

    def close(self) -> None:
        """See `Crew.close`."""
