"""CTranslate2's `Generator` on what its converter wrote; `path` is a converted folder."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np

from benches.decoding.engine import Generated, Rows, negative_log_likelihood


class CTranslateEngine:
    """Float32 or int8, as the folder was converted."""

    def __init__(self, path: Path, threads: int) -> None:
        self.model = ctranslate2.Generator(str(path), device="cpu", inter_threads=1, intra_threads=threads)
        self.tokens: list[str] = json.loads((path / "vocabulary.json").read_text(encoding="utf-8"))

    def generate(self, rows: Rows, new: int) -> Generated:
        first = 0.0

        def told(step: Any) -> bool:
            nonlocal first
            if step.step == 0:  # the last row of the batch comes last
                first = time.perf_counter()
            return False

        words = [[self.tokens[i] for i in row] for row in rows]
        started = time.perf_counter()
        found = self.model.generate_batch(
            words,
            max_length=new,
            min_length=new,  # the end of text does not stop it
            include_prompt_in_result=False,
            cache_static_prompt=False,
            callback=told,
        )
        return Generated([one.sequences_ids[0] for one in found], first - started, time.perf_counter() - first)

    def score(self, rows: Rows) -> list[float]:
        logits = np.array(self.model.forward_batch(rows.tolist()))
        return [negative_log_likelihood(row, ids) for row, ids in zip(logits, rows, strict=True)]


open_engine = CTranslateEngine
