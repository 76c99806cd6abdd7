"""Optimum's own export in its `ORTModelForCausalLM`."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from optimum.onnxruntime import ORTModelForCausalLM

from benches.decoding.engine import Generated, Rows, generate_by_steps, negative_log_likelihood


class OptimumEngine:
    """A folder that `optimum-cli export onnx` wrote."""

    def __init__(self, path: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self.model = ORTModelForCausalLM.from_pretrained(path, session_options=options)

    def generate(self, rows: Rows, new: int) -> Generated:
        past, seen = None, 0

        def feed(ids: Rows) -> NDArray[np.float32]:
            nonlocal past, seen
            positions = torch.arange(seen, seen + ids.shape[1]).expand(len(ids), -1)
            seen += ids.shape[1]
            mask = torch.ones(len(ids), seen, dtype=torch.long)
            tensor = torch.from_numpy(ids)
            found = self.model(tensor, attention_mask=mask, position_ids=positions, past_key_values=past)
            past = found.past_key_values
            return found.logits[:, -1].numpy()

        return generate_by_steps(feed, rows, new, time.perf_counter)

    def score(self, rows: Rows) -> list[float]:
        positions = torch.arange(rows.shape[1]).expand(len(rows), -1)
        found = self.model(torch.from_numpy(rows), attention_mask=torch.ones(rows.shape).long(), position_ids=positions)
        logits = found.logits.numpy()
        return [negative_log_likelihood(row, ids) for row, ids in zip(logits, rows, strict=True)]


open_engine = OptimumEngine
