"""The tensors of a quantised file: a mapping that makes the codes and scales of a matrix when they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from gpt_export.weights.layout import Coded, Layout
from gpt_export.weights.quantize.rounding import to_nearest
from gpt_export.weights.quantize.schemes import Scheme

Codes = tuple[Tensor, Tensor]
"""Codes, int8 (N, blocks, block), and scales, float32 (N, blocks)."""


class QuantizedWeights(Mapping[str, Tensor]):
    """The source's weights, and under `Layout.inputs` the codes and scales of every matrix among `layouts`.

    A matrix is quantised when one of its parts is read, and kept until another matrix is, so that memory stays at one.

    Args:
        weights: of the source.
        layouts: of the file; those without `coded` are passed over.
        calibrated: codes and scales that are known already, by the sources of their matrix.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        layouts: Iterable[Layout],
        calibrated: Mapping[tuple[str, ...], Codes] | None = None,
    ) -> None:
        self._weights = weights
        self._layouts = {layout.inputs[0]: layout for layout in layouts if layout.coded}
        self._calibrated = calibrated or {}
        self._last: tuple[tuple[str, ...], Codes] | None = None

    def __getitem__(self, name: str) -> Tensor:
        layout = self._layouts.get(name)
        if layout is None:
            return self._weights[name]
        assert layout.coded is not None
        codes, scales = self._codes(layout)
        return (
            stored_scales(scales, layout.coded) if layout.coded.part == "scales" else stored_codes(codes, layout.coded)
        )

    def __iter__(self) -> Iterator[str]:
        yield from self._weights
        yield from self._layouts

    def __len__(self) -> int:
        return len(self._weights) + len(self._layouts)

    def _codes(self, layout: Layout) -> Codes:
        if found := self._calibrated.get(layout.sources):
            return found
        if self._last is None or self._last[0] != layout.sources:
            assert layout.coded is not None
            matrix_nk = matrix_of(self._weights, layout)
            self._last = layout.sources, to_nearest(matrix_nk, Scheme(layout.coded.bits, layout.coded.block))
        return self._last[1]


def matrix_of(weights: Mapping[str, Tensor], layout: Layout) -> Tensor:
    """The matrix (N outputs, K inputs) that is quantised for `layout`."""
    joined = torch.cat([weights[source].detach() for source in layout.sources])
    return joined.T if layout.transposed else joined


def stored_codes(codes: Tensor, coded: Coded) -> Tensor:
    """Codes as the operators read them.

    By block: uint8 (N, blocks, bytes of a block), without a sign, two codes of 4 bits in a byte, the first in the low
    half (MatMulNBits, GatherBlockQuantized). By row: int8 (K, N) (MatMulIntegerToFloat).
    """
    if coded.block is None:
        return codes[:, 0].T.contiguous()
    unsigned: Tensor = (codes.to(torch.int16) + (1 << (coded.bits - 1))).to(torch.uint8)
    if coded.bits == 8:
        return unsigned
    halves: Tensor = unsigned[..., 0::2] | (unsigned[..., 1::2] << 4)
    return halves


def stored_scales(scales: Tensor, coded: Coded) -> Tensor:
    """Scales as the operators read them: float32 (N, blocks), or (N) of whole rows."""
    return scales if coded.block else scales[:, 0]
