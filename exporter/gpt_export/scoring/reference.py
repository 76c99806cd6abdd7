"""The other side of a comparison: another variant of the artifact, or the eager model, which needs torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt_export.errors import InputError
from gpt_export.runtime.session import Session

Run = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]
"""Ids and mask, int64 (batch, sequence), to logits, float32 (batch, sequence, vocabulary)."""


def session_reference(session: Session) -> Run:
    """The logits of a session."""
    return lambda ids, mask: session.decoding(len(ids)).feed(ids, mask)


def eager_reference(source: str, vocab_size: int, threads: int, **said: Any) -> Run:
    """The logits of the eager model that SOURCE names.

    Args:
        vocab_size: of the artifact, which the source's must be.
        said: what `read_source` takes beside the name.

    Raises:
        SourceError, CheckpointError: it names none.
        InputError: it has another vocabulary.
    """
    import torch  # the one part of scoring that needs it

    from gpt_export.sources.names import read_source

    torch.set_num_threads(threads)
    found = read_source(source, **said)
    if found.vocab_size != vocab_size:
        raise InputError(
            f"{source} has a vocabulary of {found.vocab_size}, the artifact one of {vocab_size}; "
            "name the source that the artifact was made from"
        )
    module = found.reference()

    def run(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        # Padding stands at the end, which no earlier position of a decoder sees.
        del mask
        with torch.no_grad():
            logits: NDArray[np.float32] = module(torch.from_numpy(ids)).float().numpy()
        return logits

    return run
