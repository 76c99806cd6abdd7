"""An artifact in its own `Session`; `path` is the artifact's folder, `#` and the variant."""

from __future__ import annotations

import time
from pathlib import Path

from gpt_export.runtime.session import Session

from benches.decoding.engine import Generated, Rows, negative_log_likelihood


class OurEngine:
    """One variant of an artifact, through the interface that applications use."""

    def __init__(self, path: Path, threads: int) -> None:
        folder, _, variant = str(path).rpartition("#")
        self.session = Session.open(folder, variant=variant, verify=False, threads=threads)

    def generate(self, rows: Rows, new: int) -> Generated:
        started = time.perf_counter()
        steps = self.session.generate(rows, max_new_tokens=new)
        chosen = [next(steps)]
        first = time.perf_counter()
        chosen += list(steps)
        ended = time.perf_counter()
        return Generated([list(map(int, row)) for row in zip(*chosen, strict=True)], first - started, ended - first)

    def score(self, rows: Rows) -> list[float]:
        return [negative_log_likelihood(self.session.logits(row[None])[0], row) for row in rows]


open_engine = OurEngine
