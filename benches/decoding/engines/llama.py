"""llama.cpp through the C interface of `llama_cpp`; `path` is a .gguf file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import llama_cpp as llama
import numpy as np
from numpy.typing import NDArray

from benches.decoding.engine import Generated, Rows, generate_by_steps, negative_log_likelihood

TOKENS = 1024
"""Ids that one row may have; many rows have a quarter of it each."""
ROWS = 16


class LlamaEngine:
    """A context for one row, and one for up to 16 that is made when it is needed."""

    def __init__(self, path: Path, threads: int) -> None:
        self._silence = llama.llama_log_callback(lambda *_: None)
        llama.llama_log_set(self._silence, None)
        llama.llama_backend_init()
        self.model = llama.llama_model_load_from_file(str(path).encode(), llama.llama_model_default_params())
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {path.name}")
        self.vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model))
        self.threads = threads
        self.contexts: dict[int, Any] = {}
        self._context(1)

    def _context(self, rows: int) -> Any:
        sequences = 1 if rows == 1 else ROWS
        if sequences not in self.contexts:
            params = llama.llama_context_default_params()
            trained = llama.llama_model_n_ctx_train(self.model)
            params.n_ctx = min(TOKENS, trained) if sequences == 1 else sequences * TOKENS // 4
            params.n_batch = params.n_ctx
            params.n_seq_max = sequences
            params.n_threads = params.n_threads_batch = self.threads
            self.contexts[sequences] = llama.llama_init_from_model(self.model, params)
        context = self.contexts[sequences]
        llama.llama_memory_clear(llama.llama_get_memory(context), True)
        return context

    def _decode(self, context: Any, ids: Rows, seen: int, *, every: bool = False) -> NDArray[np.float32]:
        """Logits of the last id of each row (batch, vocabulary), or of every id (batch * n, vocabulary)."""
        rows, length = ids.shape
        batch = llama.llama_batch_init(ids.size, 0, 1)
        batch.n_tokens = ids.size
        wanted = []
        for row in range(rows):
            for i in range(length):
                at = row * length + i
                batch.token[at], batch.pos[at] = int(ids[row, i]), seen + i
                batch.n_seq_id[at], batch.seq_id[at][0] = 1, row
                batch.logits[at] = every or i == length - 1
                if batch.logits[at]:
                    wanted.append(at)
        code = llama.llama_decode(context, batch)
        if code:
            raise SystemExit(f"llama_decode answered {code}")
        shape = (self.vocabulary,)
        found = [np.ctypeslib.as_array(llama.llama_get_logits_ith(context, at), shape).copy() for at in wanted]
        llama.llama_batch_free(batch)
        return np.stack(found)

    def generate(self, rows: Rows, new: int) -> Generated:
        context, seen = self._context(len(rows)), 0

        def feed(ids: Rows) -> NDArray[np.float32]:
            nonlocal seen
            logits = self._decode(context, ids, seen)
            seen += ids.shape[1]
            return logits

        return generate_by_steps(feed, rows, new, time.perf_counter)

    def score(self, rows: Rows) -> list[float]:
        return [negative_log_likelihood(self._decode(self._context(1), row[None], 0, every=True), row) for row in rows]


open_engine = LlamaEngine
