"""Cases through models: one function from a case to logits for each kind of thing that can be run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import nn

from gpt_export.gate.case import Case
from gpt_export.gate.parity import Logits
from gpt_export.gate.tracing.activations import Array, Feed
from gpt_export.runtime.decoding import Past, Rejoinable
from gpt_export.runtime.session import Session
from gpt_export.runtime.signature import ATTENTION_MASK, INPUT_IDS, NUM_LOGITS_TO_KEEP, POSITION_IDS, CacheShape

LOGITS_AXES = 3
Run = Callable[[Case], Logits]
"""A case to its logits, float32 (batch, sequence, vocabulary); those at padding mean nothing."""


def run_of_module(module: nn.Module) -> Run:
    """The run of a module from ids to logits; it sees padding as tokens."""
    return lambda case: logits_of(module, case.ids)


def run_of_session(session: Session, look: Callable[[Past], None] | None = None) -> Run:
    """The run of a session; a case in chunks is fed chunk by chunk.

    Where a case is about the cache or padding, single tokens and what is padded in front are fed as `Session.generate`
    does it, which asks for the last logits alone.

    Args:
        look: told what the cache holds behind each case.
    """

    def run(case: Case) -> Logits:
        decoding = session.decoding(len(case.ids))
        if case.behind:
            cast(Rejoinable, decoding).resume(cast(Rejoinable, decoding).past().behind_padding(case.behind))
        parts = []
        for start, stop in case.cuts():
            ids, mask = case.ids[:, start:stop], case.mask[:, start:stop]
            if case.needs != "ids" and stop - start == 1:
                parts.append(decoding.feed_for_last(ids, mask)[:, None])
                continue
            logits = decoding.feed(ids, mask)
            if start == 0 and not mask[:, 0].all():
                logits = np.array(logits)
                logits[:, -1] = session.decoding(len(ids)).feed_for_last(ids, mask)
            parts.append(logits)
        if look is not None:
            look(cast(Rejoinable, decoding).past())
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    return run


def feed_graph(cache: CacheShape | None) -> Feed:
    """The feed of one of our own graphs, with or without a cache; see `gpt_export.gate.tracing.activations.Feed`."""

    def feed(session: ort.InferenceSession, case: Case, tensors: Sequence[str]) -> list[dict[str, Array]]:
        if case.several_behind_past and _is_fused(session):
            fed = [feed_rows(session, case.row(index), tensors) for index in range(len(case.ids))]
            return [
                {name: np.concatenate([chunk[name] for chunk in chunks]) for name in tensors}
                for chunks in zip(*fed, strict=True)
            ]
        return feed_rows(session, case, tensors)

    def feed_rows(session: ort.InferenceSession, case: Case, tensors: Sequence[str]) -> list[dict[str, Array]]:
        past: dict[str, Array] = {}
        if cache:
            shapes = cache.empty_shapes(len(case.ids))
            past = {
                name: np.zeros((batch, heads, case.behind, width), np.float32)
                for name, (batch, heads, _, width) in shapes.items()
            }
        padding = np.zeros((len(case.ids), case.behind), np.int64)
        present_names = cache.present_names() if cache else []
        positions = np.maximum(np.cumsum(case.mask, axis=1) - 1, 0)
        chunks = []
        for start, stop in case.cuts(cached=cache is not None):
            inputs: dict[str, NDArray[Any]] = {INPUT_IDS: case.ids[:, start:stop], **past}
            if cache:
                mask = np.concatenate([padding, case.mask[:, :stop]], axis=1)
                inputs |= {ATTENTION_MASK: mask, POSITION_IDS: positions[:, start:stop]}
            outputs = session.run([*tensors, *present_names], inputs)
            chunks.append(dict(zip(tensors, outputs, strict=False)))
            past = dict(zip(past, outputs[len(tensors) :], strict=True))
        return chunks

    return feed


def _is_fused(session: ort.InferenceSession) -> bool:
    """Whether the graph has GroupQueryAttention, which takes several tokens behind a past for one row alone."""
    return any(value.name == NUM_LOGITS_TO_KEEP for value in session.get_overridable_initializers())


def run_whole(run: Run, case: Case) -> Logits:
    """The scores of a case at every position that is compared, also of what scores the last position alone."""
    found = run(case)
    if not case.by_prefix or (found.ndim == LOGITS_AXES and found.shape[1] == case.ids.shape[1]):
        return found
    return run_prefixes(run, case)


def run_prefixes(run: Run, case: Case) -> Logits:
    """The scores of every prefix's last position, or of the prefix as a whole, where that prefix ends.

    They are (batch, sequence, width), and mean nothing at positions that are not `case.compared()`.
    """
    scores: Logits | None = None
    for end in case.ends():
        ids, mask = np.ascontiguousarray(case.ids[:, :end]), case.mask[:, :end]
        found = run(replace(case, ids=ids, mask=mask, chunks=(), by_prefix=False))
        found = found[:, -1] if found.ndim == LOGITS_AXES else found
        if scores is None:
            scores = np.zeros((*case.ids.shape, found.shape[1]), np.float32)
        scores[:, end - 1] = found
    assert scores is not None
    return scores


def run_rows_alone(module: nn.Module, case: Case) -> Logits:
    """The eager logits of a case: of the whole batch, or of every row alone where some are padded."""
    if case.mask.all():
        return run_whole(run_of_module(module), case)
    if case.by_prefix:
        return _run_prefixes_alone(module, case)
    alone = [logits_of(module, row)[0] for row in case.rows()]
    logits = np.zeros((*case.ids.shape, alone[0].shape[-1]), np.float32)
    logits[case.mask.astype(bool)] = np.concatenate(alone)
    return logits


def _run_prefixes_alone(module: nn.Module, case: Case) -> Logits:
    scores: Logits | None = None
    for row, position in np.argwhere(case.compared()):
        kept = case.mask[row, : position + 1].astype(bool)
        found = logits_of(module, np.ascontiguousarray(case.ids[row : row + 1, : position + 1][:, kept]))
        if scores is None:
            scores = np.zeros((*case.ids.shape, found.shape[-1]), np.float32)
        scores[row, position] = found.reshape(-1, found.shape[-1])[-1]
    assert scores is not None
    return scores


def logits_of(module: nn.Module, ids: NDArray[np.int64]) -> Logits:
    """What `module` returns for `ids`, without gradients."""
    with torch.no_grad():
        logits: Logits = module(torch.from_numpy(ids)).numpy()
    return logits
