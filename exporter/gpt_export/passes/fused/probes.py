"""Texts to try a graph on: sizes, padding and positions, without what the tokens are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from gpt_export.passes.building import graph_input
from gpt_export.runtime.signature import ATTENTION_MASK, INPUT_IDS, POSITION_IDS

Array = np.ndarray


@dataclass(frozen=True, slots=True)
class Probe:
    """`batch` rows of `new` tokens behind `past` ones; `padded[row]` tokens in front of a row are padding."""

    batch: int
    past: int
    new: int
    padded: tuple[int, ...] = ()

    @property
    def total(self) -> int:
        """Past and new tokens of a row."""
        return self.past + self.new

    @property
    def mask(self) -> Array:
        """int64 (batch, total): 0 where a token is padding, else 1."""
        padded = np.array(self.padded or (0,) * self.batch)
        return (np.arange(self.total) >= padded[:, None]).astype(np.int64)

    @property
    def positions(self) -> Array:
        """int64 (batch, new): how many tokens that are no padding stand in front."""
        return np.asarray(np.maximum(np.cumsum(self.mask, axis=1) - 1, 0)[:, self.past :])

    @property
    def real(self) -> Array:
        """bool (batch, new): which new tokens are no padding."""
        return self.mask[:, self.past :].astype(bool)

    def inputs(self, graph: ir.Graph, positions: Array | None = None) -> dict[ir.Value, Array]:
        """Ids of 0, mask, positions and a past of zeros, for every such input of `graph`."""
        given = {
            graph_input(graph, INPUT_IDS): np.zeros((self.batch, self.new), np.int64),
            graph_input(graph, ATTENTION_MASK): self.mask,
            graph_input(graph, POSITION_IDS): self.positions if positions is None else positions,
        }
        for value in graph.inputs:
            if str(value.name).startswith("past_key_values."):
                _, heads, _, width = value.shape  # type: ignore[misc]
                given[value] = np.zeros((self.batch, int(heads), self.past, int(width)), np.float32)  # type: ignore[arg-type]
        return given
