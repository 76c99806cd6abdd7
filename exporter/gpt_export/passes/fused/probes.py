"""Texts to try a graph on: sizes, padding and positions, without what the tokens are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

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
        """Ids of 0, mask, positions and a past of zeros, for those of them that `graph` has as inputs."""
        named = {
            INPUT_IDS: np.zeros((self.batch, self.new), np.int64),
            ATTENTION_MASK: self.mask,
            POSITION_IDS: self.positions if positions is None else positions,
        }
        given = {}
        for value in graph.inputs:
            if value.name in named:
                given[value] = named[value.name]
            elif str(value.name).startswith("past_key_values."):
                _, heads, _, width = value.shape  # type: ignore[misc]
                given[value] = np.zeros((self.batch, int(heads), self.past, int(width)), np.float32)  # type: ignore[arg-type]
        return given
