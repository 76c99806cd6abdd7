"""Cases through models: one function from a case to logits for each kind of thing that can be run."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from exporter.cases import Case
from exporter.parity import Logits
from exporter.runtime import Session

Run = Callable[[Case], Logits]
"""A case to its logits, float32 (batch, sequence, vocabulary); those at padding mean nothing."""


def run_of_module(module: nn.Module) -> Run:
    """The run of a module from ids to logits; it sees padding as tokens."""
    return lambda case: logits_of(module, case.ids)


def run_of_session(session: Session) -> Run:
    """The run of a session; a case in chunks is fed chunk by chunk."""

    def run(case: Case) -> Logits:
        decoding = session.decoding(len(case.ids))
        cuts = np.cumsum((0, *(case.chunks or (case.ids.shape[1],))))
        parts = [
            decoding.feed(case.ids[:, start:stop], case.mask[:, start:stop]) for start, stop in itertools.pairwise(cuts)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    return run


def run_rows_alone(module: nn.Module, case: Case) -> Logits:
    """The eager logits of a case: of the whole batch, or of every row alone where some are padded."""
    if case.mask.all():
        return logits_of(module, case.ids)
    alone = [logits_of(module, row)[0] for row in case.rows()]
    logits = np.zeros((*case.ids.shape, alone[0].shape[-1]), np.float32)
    logits[case.mask.astype(bool)] = np.concatenate(alone)
    return logits


def logits_of(module: nn.Module, ids: NDArray[np.int64]) -> Logits:
    """What `module` returns for `ids`, without gradients."""
    with torch.no_grad():
        logits: Logits = module(torch.from_numpy(ids)).numpy()
    return logits
