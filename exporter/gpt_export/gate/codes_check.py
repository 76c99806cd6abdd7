"""Quantised matrices of a staged file beside their source: read back as numbers, how far off are they?

Shares no code with the quantiser. A matrix that was transposed, cut into other blocks, or put in the place of another
one has no more in common with its source than noise has, whatever the logits on a few texts say.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpt_export.artifact.onnx_model import OnnxModel
from gpt_export.gate.weights_check import stored_array
from gpt_export.weights.layout import Coded, Layout

LEAST_SQNR_DB = {8: 30.0, 4: 8.0}
"""By bits. Rounding normal weights to 8 bits by row leaves about 37 dB, to 4 bits by block about 20 dB; GPTQ gives some
of that away for better outputs (docs/variants.md). Another matrix leaves -3 dB."""
MOST_DRIFT = 0.3
"""Steps by which codes may be off on average. Rounding drifts by next to nothing; a zero point off by one is a step off
everywhere, which at 8 bits leaves more than 30 dB."""
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class CodesResult:
    """What the quantised matrices of one file are."""

    matrices: int
    elements: int
    worst_sqnr_db: float | None
    """Signal to quantisation noise of the worst matrix: 10 log10(sum w^2 / sum (w - stored)^2)."""
    worst_matrix: str
    faults: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values of every figure."""
        return {
            "matrices": self.matrices,
            "elements": self.elements,
            "worst_sqnr_db": self.worst_sqnr_db,
            "worst_matrix": self.worst_matrix,
        }


def check_codes(model: OnnxModel, weights: Mapping[str, Tensor], layouts: Mapping[str, Layout]) -> CodesResult:
    """Every matrix of the file that is stored as codes and scales, against its source.

    Args:
        model: the `.onnx` file, its external data beside it.
        weights: of the source, (N outputs, K inputs).
        layouts: by initializer.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    parts: dict[tuple[str, ...], dict[str, tuple[str, Coded]]] = {}
    swapped = set()
    for name, layout in layouts.items():
        if layout.coded:
            parts.setdefault(layout.sources, {})[layout.coded.part] = name, layout.coded
            if layout.transposed:
                swapped.add(layout.sources)
    found: dict[str, float] = {}
    faults, elements = [], 0
    for sources, pair in parts.items():
        (codes_name, coded), (scales_name, _) = pair["codes"], pair["scales"]
        codes, scales = (stored_array(tensors[name], model.path.parent) for name in (codes_name, scales_name))
        sums = _compared(_source_rows(weights, sources, sources in swapped), codes, scales, coded)
        elements += sums.elements
        label = " + ".join(sources)
        found[label] = sums.sqnr_db
        faults += [f"weight {label}: its {coded.bits}-bit codes {words}" for words in sums.faults(coded.bits)]
    worst = min(found, key=lambda name: found[name], default="")
    finite = found and math.isfinite(found[worst])
    return CodesResult(
        matrices=len(found),
        elements=elements,
        worst_sqnr_db=round(found[worst], 2) if finite else None,
        worst_matrix=worst,
        faults=tuple(faults),
    )


@dataclass(slots=True)
class _Sums:
    """What the rows of one matrix add up to."""

    signal: float = 0.0
    noise: float = 0.0
    drift: float = 0.0
    elements: int = 0
    lost: int = 0
    """Rows whose error is larger than they are: those of another neuron, head or token."""

    @property
    def sqnr_db(self) -> float:
        if not self.noise:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf

    def faults(self, bits: int) -> Iterator[str]:
        if not self.sqnr_db >= LEAST_SQNR_DB[bits]:
            yield f"are {self.sqnr_db:.1f} dB above their error, at least {LEAST_SQNR_DB[bits]:g} dB are demanded"
        elif self.lost:
            yield f"have {self.lost} rows that are not the source's: swapped, perhaps, with others"
        if self.elements and not abs(self.drift) <= MOST_DRIFT * self.elements:
            yield f"are off by {self.drift / self.elements:+.2f} of a step on average: another zero point, perhaps"


def _compared(
    source_rows: Iterator[tuple[int, NDArray[np.float32]]],
    codes: NDArray[Any],
    scales: NDArray[Any],
    coded: Coded,
) -> _Sums:
    sums = _Sums()
    for start, rows in source_rows:
        stored = read_back(codes, scales, coded, start, len(rows), rows.shape[1])
        steps = scales[start : start + len(rows)]
        steps = steps[:, None] if coded.block is None else np.repeat(steps, coded.block, axis=1)[:, : rows.shape[1]]
        error = stored.astype(np.float64) - rows
        signal, noise = (np.square(each, dtype=np.float64).sum(axis=1) for each in (rows, error))
        sums.signal += float(signal.sum())
        sums.noise += float(noise.sum())
        sums.lost += int(np.count_nonzero(noise > signal))
        with np.errstate(divide="ignore", invalid="ignore"):
            sums.drift += float((error / steps).sum())
        sums.elements += rows.size
    return sums


def read_back(
    codes: NDArray[Any], scales: NDArray[Any], coded: Coded, start: int, count: int, width: int
) -> NDArray[np.float32]:
    """Rows `start` to `start + count` of a matrix as the operators compute with it, float32 (count, width)."""
    stop = start + count
    if coded.block is None:
        rows: NDArray[np.float32] = codes[:, start:stop].T.astype(np.float32) * scales[start:stop, None]
        return rows
    stored = codes[start:stop]
    if coded.bits == 4:
        stored = np.stack([stored & 15, stored >> 4], axis=-1).reshape(*stored.shape[:2], -1)
    signed = stored.astype(np.float32) - np.float32(2 ** (coded.bits - 1))
    blocks: NDArray[np.float32] = signed * scales[start:stop, :, None]
    return blocks.reshape(count, -1)[:, :width]


def _source_rows(
    weights: Mapping[str, Tensor], sources: tuple[str, ...], swapped: bool
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The matrix (outputs, inputs), some rows at a time, each with the number of its first one."""
    tensors = [weights[source].detach() for source in sources]
    at = 0
    for tensor in [torch.cat(tensors).T] if swapped else tensors:
        for start in range(0, tensor.shape[0], _ROWS_AT_ONCE):
            rows = tensor[start : start + _ROWS_AT_ONCE].to(torch.float32).numpy()
            yield at + start, rows
        at += tensor.shape[0]
