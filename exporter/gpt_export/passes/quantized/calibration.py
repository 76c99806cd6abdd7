"""A text through the float graph, product by product, each weight rounded for what it reads behind the rounded ones."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpt_export.passes.quantized.products import Product, find_heads, find_products, token_lookups
from gpt_export.passes.quantized.segments import Array, SegmentedRun, feed_of
from gpt_export.progress import OnPart, ignore_part
from gpt_export.weights.layout import Layout, layout_of
from gpt_export.weights.numbers import laid_out
from gpt_export.weights.quantize.gptq import rounded_for_inputs
from gpt_export.weights.quantize.parallel import Each, one_thread_a_part
from gpt_export.weights.quantize.schemes import PrecisionPlan, Scheme
from gpt_export.weights.quantize.weights import Codes, matrix_of

logger = logging.getLogger(__name__)

_WINDOWS_AT_ONCE = 4
_LOOKUP_WEIGHT = 0.05
"""Of a tied embedding's second moment, the share that stands for the lookup, which reads every column alike."""


def calibrate(
    model: ir.Model,
    weights: Mapping[str, Tensor],
    windows: NDArray[np.int64],
    plan: PrecisionPlan,
    on_part: OnPart = ignore_part,
) -> dict[tuple[str, ...], Codes]:
    """Codes and scales of every matrix in a product of `model`, by the names of its sources, rounded for a text.

    What a product reads is taken from the graph itself, so nothing has to be known of the module behind it. Method:
    GPTQ, see `rounded_for_inputs`; as in the paper, what a layer reads comes from the rounded layers before it.

    Args:
        model: the float graph, its weights still inputs.
        weights: of the source.
        windows: token ids of the text, int64 (windows, length).
        on_part: told of every matrix.
    """
    with torch.no_grad(), one_thread_a_part() as each:
        return dict(_Calibration(model, weights, windows, plan, each).rounded(on_part))


class _Calibration:
    def __init__(
        self,
        model: ir.Model,
        weights: Mapping[str, Tensor],
        windows: NDArray[np.int64],
        plan: PrecisionPlan,
        each: Each,
    ) -> None:
        graph = model.clone().graph
        graph.sort()
        self._weights, self._plan, self._each = weights, plan, each
        self._products = find_products(graph)
        self._heads = find_heads(graph, self._products)
        self._known: dict[ir.Value, Array] = {}
        batches = [windows[i : i + _WINDOWS_AT_ONCE] for i in range(0, len(windows), _WINDOWS_AT_ONCE)]
        self._run = SegmentedRun(graph, [feed_of(graph, ids) for ids in batches], self._weight, each)

    def rounded(self, on_part: OnPart) -> Iterator[tuple[tuple[str, ...], Codes]]:
        """The codes of each matrix, product by product in the order of the graph."""
        groups: dict[ir.Value, list[Product]] = {}
        for product in self._products:
            groups.setdefault(product.x, []).append(product)
        for done, (x, products) in enumerate(groups.items()):
            fresh = [product for product in products if product.weight not in self._known]
            if not fresh:
                continue
            moment = _second_moment(self._run.values(x), fresh[0].width, each=self._each)
            for product in {each.weight: each for each in fresh}.values():
                yield self._round(product, moment)
            on_part(done + 1, len(groups), "group of matrices")
            logger.info("rounded products %d of %d", done + 1, len(groups))

    def _round(self, product: Product, moment: Tensor) -> tuple[tuple[str, ...], Codes]:
        layout = layout_of(product.weight)
        assert layout is not None
        looked_up = bool(token_lookups(product.weight))
        scheme: Scheme = (self._plan.head if looked_up or product.node in self._heads else self._plan.body)(
            product.width
        )
        if looked_up:
            share = _LOOKUP_WEIGHT / (1 - _LOOKUP_WEIGHT) * moment.diagonal().mean()
            moment = moment + share * torch.eye(product.width)
        matrix_nk = matrix_of(self._weights, Layout(layout.sources, layout.transposed != product.inputs_first))
        codes, scales = rounded_for_inputs(matrix_nk, moment, scheme, self._each)
        restored = (codes * scales.unsqueeze(-1)).reshape(len(matrix_nk), -1)[:, : product.width]
        if not looked_up:  # its lookups have run with the weights as they were
            stored = restored.T if product.inputs_first else restored
            self._known[product.weight] = stored.contiguous().numpy()
        else:
            self._known[product.weight] = self._weight(product.weight)
        return layout.sources, (codes, scales)

    def _weight(self, value: ir.Value) -> Array:
        """The numbers of a weight as the graph has it: rounded where that is done, else the source's."""
        if (known := self._known.get(value)) is not None:
            return known
        layout = layout_of(value)
        assert layout is not None
        assert value.dtype is not None
        return np.asarray(laid_out(layout, self._weights), value.dtype.numpy())


def _second_moment(read: list[Array], width: int, each: Each) -> Tensor:
    """X^T X of what a product reads, float32 (width, width), summed batch by batch."""

    @torch.no_grad()  # which holds for the thread that says so
    def of_batch(array: Array) -> Tensor:
        rows = torch.from_numpy(array).reshape(-1, width)
        return rows.T @ rows

    return sum(each(of_batch, read), torch.zeros(width, width))
