"""OpenVINO GenAI's `LLMPipeline` on what optimum-intel exported; `path` is that folder.

A folder named `...fp32` runs in float32 with a float32 cache, the others as OpenVINO's defaults have it (on processors
with bfloat16 that is a bfloat16 computation, and the cache has 8 bits).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai

from benches.decoding.engine import Generated, Rows

EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}


class OpenVinoEngine:
    """The pipeline tells the moment of every token itself."""

    def __init__(self, path: Path, threads: int) -> None:
        settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads} | (EXACT if path.name.endswith("fp32") else {})
        self.pipeline = genai.LLMPipeline(str(path), "CPU", settings)

    def generate(self, rows: Rows, new: int) -> Generated:
        config = genai.GenerationConfig(max_new_tokens=new, ignore_eos=True, do_sample=False)
        inputs = genai.TokenizedInputs(openvino.Tensor(rows), openvino.Tensor(np.ones_like(rows)))
        found = self.pipeline.generate(inputs, config)
        metrics = found.perf_metrics.raw_metrics
        moments_ms = metrics.m_new_token_times
        rest_s = (moments_ms[-1] - moments_ms[0]) / 1e3
        return Generated([list(row) for row in found.tokens], metrics.m_times_to_first_token[0] / 1e6, rest_s)

    def score(self, rows: Rows) -> list[float]:
        raise NotImplementedError(f"the pipeline gives no logits to score {len(rows)} rows by")


open_engine = OpenVinoEngine
