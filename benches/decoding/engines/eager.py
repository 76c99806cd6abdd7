"""PyTorch, eager, with a key-value cache, by transformers."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

from benches.decoding.engine import Generated, Rows, generate_by_steps, negative_log_likelihood


class EagerEngine:
    """The model of a folder of transformers, in float32."""

    def __init__(self, path: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()

    @torch.inference_mode()
    def generate(self, rows: Rows, new: int) -> Generated:
        past, seen = None, 0

        def feed(ids: Rows) -> NDArray[np.float32]:
            nonlocal past, seen
            seen += ids.shape[1]
            mask = torch.ones(len(ids), seen, dtype=torch.long)
            tensor = torch.from_numpy(ids)
            found = self.model(tensor, attention_mask=mask, past_key_values=past, use_cache=True, logits_to_keep=1)
            past = found.past_key_values
            return found.logits[:, -1].numpy()

        return generate_by_steps(feed, rows, new, time.perf_counter)

    @torch.inference_mode()
    def score(self, rows: Rows) -> list[float]:
        logits = self.model(torch.from_numpy(rows)).logits.numpy()
        return [negative_log_likelihood(row, ids) for row, ids in zip(logits, rows, strict=True)]


open_engine = EagerEngine
