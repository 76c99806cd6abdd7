"""Quantised matrices of a staged file beside their source: read back as numbers, how far off are they?

Shares no code with the quantiser. A matrix that was transposed, cut into other blocks, or put in the place of another
one has no more in common with its source than noise has, whatever the logits on a few texts say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from exporter.gate.weights_check import stored_array
from exporter.layout import Coded, Layout

LEAST_SQNR_DB = {8: 30.0, 4: 8.0}
"""By bits. Rounding normal weights to 8 bits by row leaves about 37 dB, to 4 bits by block about 20 dB; GPTQ gives some
of that away for better outputs (docs/quantisation.md). Another matrix leaves -3 dB."""
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


def check_codes(path: Path, weights: Mapping[str, Tensor], layouts: Mapping[str, Layout]) -> CodesResult:
    """Every matrix of the file that is stored as codes and scales, against its source.

    Args:
        path: the `.onnx` file, its external data beside it.
        weights: of the source, (N outputs, K inputs).
        layouts: by initializer.
    """
    proto = onnx.load(path, load_external_data=False)
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    parts: dict[tuple[str, ...], dict[str, tuple[str, Coded]]] = {}
    for name, layout in layouts.items():
        if layout.coded:
            parts.setdefault(layout.sources, {})[layout.coded.part] = name, layout.coded
    found: dict[str, float] = {}
    faults, elements = [], 0
    for sources, pair in parts.items():
        (codes_name, coded), (scales_name, _) = pair["codes"], pair["scales"]
        codes, scales = (stored_array(tensors[name], path.parent) for name in (codes_name, scales_name))
        signal = noise = 0.0
        for start, rows in _source_rows(weights, sources):
            stored = read_back(codes, scales, coded, start, len(rows), rows.shape[1])
            signal += float(np.square(rows, dtype=np.float64).sum())
            noise += float(np.square(rows - stored, dtype=np.float64).sum())
            elements += rows.size
        label = " + ".join(sources)
        found[label] = 10 * math.log10(signal / noise) if signal and noise else math.inf
        if not found[label] >= LEAST_SQNR_DB[coded.bits]:
            faults.append(
                f"weight {label}: its {coded.bits}-bit codes are {found[label]:.1f} dB above their error, "
                f"at least {LEAST_SQNR_DB[coded.bits]:g} dB are demanded"
            )
    worst = min(found, key=lambda name: found[name], default="")
    finite = found and math.isfinite(found[worst])
    return CodesResult(
        matrices=len(found),
        elements=elements,
        worst_sqnr_db=round(found[worst], 2) if finite else None,
        worst_matrix=worst,
        faults=tuple(faults),
    )


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


def _source_rows(weights: Mapping[str, Tensor], sources: tuple[str, ...]) -> Any:
    at = 0
    for source in sources:
        tensor = weights[source].detach()
        for start in range(0, tensor.shape[0], _ROWS_AT_ONCE):
            rows = tensor[start : start + _ROWS_AT_ONCE].to(torch.float32).numpy()
            yield at + start, rows
        at += tensor.shape[0]
