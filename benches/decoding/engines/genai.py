"""onnxruntime-genai's own `Generator` on what its model builder wrote; `path` is that folder."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import onnxruntime_genai as genai
from numpy.typing import NDArray

from benches.decoding.engine import Generated, Rows, generate_by_steps


class GenaiEngine:
    """The number of threads is what `genai_config.json` says, so it is written there first."""

    def __init__(self, path: Path, threads: int) -> None:
        written = path / "genai_config.json"
        config = json.loads(written.read_text(encoding="utf-8"))
        config["model"]["decoder"]["session_options"]["intra_op_num_threads"] = threads
        written.write_text(json.dumps(config, indent=4), encoding="utf-8")
        self.model = genai.Model(str(path))

    def generate(self, rows: Rows, new: int) -> Generated:
        params = genai.GeneratorParams(self.model)
        params.set_search_options(max_length=rows.shape[1] + new, batch_size=len(rows), do_sample=False)
        generator = genai.Generator(self.model, params)

        def feed(ids: Rows) -> NDArray[np.float32]:
            generator.append_tokens(ids.astype(np.int32))
            logits: NDArray[np.float32] = generator.get_logits()
            return logits[:, -1]

        return generate_by_steps(feed, rows, new, time.perf_counter)

    def score(self, rows: Rows) -> list[float]:
        raise NotImplementedError(f"the builder's graphs give the last logits alone, too few to score {len(rows)} rows")


open_engine = GenaiEngine
