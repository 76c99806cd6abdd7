"""Eager logits of the cases, each row run once however many cases and candidates ask for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from gpt_export.errors import SourceError
from gpt_export.gate.case import Case
from gpt_export.gate.parity import Logits
from gpt_export.gate.runs import LOGITS_AXES, logits_of, run_rows_alone
from gpt_export.progress import OnPart, ignore_part
from gpt_export.sources.places import blame

BATCH_POSITIONS = 256
"""Rows of one length are run together up to so many positions, which bounds the logits in memory."""

Ids = NDArray[np.int64]


class ReferenceLogits:
    """Kept in files, so that the reference can go before a candidate comes.

    Rows of one length are run as batches, whatever case they are of: that a row's scores do not depend on the rows
    beside it is asked of the reference itself (`gpt_export.gate.reference`).
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places: dict[bytes, tuple[Path, int]] = {}
        """By the ids of a row, the file and the row there."""

    def record(self, reference: nn.Module, cases: Sequence[Case], on_part: OnPart = ignore_part) -> None:
        """Runs `reference` on the cases.

        Raises:
            OSError: the logits cannot be written.
            SourceError: the reference fails.
        """
        rows = [row for case in cases if not case.by_prefix for row in case.rows()]
        batches = list(_batches([row for row in rows if row.tobytes() not in self._places]))
        apart = [case for case in cases if case.by_prefix]
        for done, batch in enumerate(batches):
            on_part(done, len(batches) + len(apart), "batch")
            path = self._folder / f"rows-{len(self._places)}.npy"
            save(path, _run(reference, batch))
            self._places |= {row.tobytes(): (path, place) for place, row in enumerate(batch)}
        for done, case in enumerate(apart, start=len(batches)):
            on_part(done, len(batches) + len(apart), "case")
            try:
                logits = run_rows_alone(reference, case)
            except Exception as error:  # the user's code
                raise _failure(reference, case.ids, error) from error
            save(self._path(case), logits)

    def of(self, case: Case) -> Logits:
        """The logits of one case, zeros at padding; mapped from their file where they lie there as they are."""
        if case.by_prefix:
            return _mapped(self._path(case))
        places = [self._places[row.tobytes()] for row in case.rows()]
        first, start = places[0]
        if case.mask.all() and places == [(first, start + i) for i in range(len(places))]:
            return _mapped(first)[start : start + len(places)]
        found = [_mapped(path)[place] for path, place in places]
        logits = np.zeros((*case.ids.shape, found[0].shape[-1]), np.float32)
        for row, mask, scores in zip(logits, case.mask, found, strict=True):
            row[mask.astype(bool)] = scores
        return logits

    def _path(self, case: Case) -> Path:
        return self._folder / f"{case.name}.npy"


def _batches(rows: Sequence[Ids]) -> Iterator[Ids]:
    """The rows without those that are there already, (1, length) each, as batches of one length."""
    by_length: dict[int, dict[bytes, Ids]] = {}
    for row in rows:
        by_length.setdefault(row.shape[1], {}).setdefault(row.tobytes(), row)
    for length, alike in by_length.items():
        distinct = list(alike.values())
        step = max(1, BATCH_POSITIONS // max(1, length))
        for start in range(0, len(distinct), step):
            yield np.ascontiguousarray(np.concatenate(distinct[start : start + step]))


def _run(reference: nn.Module, ids: Ids) -> Logits:
    try:
        logits = logits_of(reference, ids)
    except Exception as error:  # the user's code
        raise _failure(reference, ids, error) from error
    return logits if logits.ndim == LOGITS_AXES else logits[:, None]


def _failure(reference: nn.Module, ids: Ids, error: Exception) -> SourceError:
    return SourceError(
        f"{type(reference).__name__} fails on ids of shape {list(ids.shape)}: {blame(error)}; state a "
        "context_length that it runs on"
    )


def save(path: Path, logits: Logits) -> None:
    """As `np.save`, whose error on a full disk does not say so."""
    whole = np.ascontiguousarray(logits)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(whole))
        file.write(whole.data)


def _mapped(path: Path) -> Logits:
    logits: Logits = np.load(path, mmap_mode="r")
    return logits
