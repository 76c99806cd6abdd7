"""What is at hand when a fault has been located: the values on both sides of it, the graph, and the weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import Tensor

from gpt_export.gate.case import Case
from gpt_export.gate.tracing.activations import Array
from gpt_export.gate.tracing.anchors import Anchor, End
from gpt_export.gate.weights_check import stored_array

EXPLAINED = 0.05
"""What a cause may leave of the difference and still be it."""


@dataclass(frozen=True)
class Evidence:
    """The first fault and what surrounds it. Arrays are (positions, width), over the tokens of the case's rows."""

    anchor: Anchor
    wanted: Array
    got: Array
    path: Path
    graph: onnx.GraphProto
    weights: Mapping[str, Tensor]
    """The reference's parameters."""
    sources: Mapping[str, tuple[str, ...]]
    """By initializer, the parameters that it holds."""
    expected: Mapping[tuple[str, End], Array]
    """Eager's activations by module and end."""
    found: Mapping[str, Array]
    """The graph's tensors."""
    anchors: Sequence[Anchor]
    case: Case

    @property
    def module(self) -> str:
        """The module whose end deviates, the first where several are joined."""
        return self.anchor.modules[0]

    @cached_property
    def deviation(self) -> float:
        """The largest difference."""
        return self.off_by(self.wanted)

    def off_by(self, candidate: Array) -> float:
        """The largest difference of the graph's values from `candidate`'s; infinite for another shape or NaN."""
        if candidate.shape != self.got.shape:
            return float("inf")
        error = float(np.abs(self.got.astype(np.float64) - candidate).max())
        return error if np.isfinite(error) else float("inf")

    def explains(self, candidate: Array) -> bool:
        """Whether the graph's values are those of `candidate`, much nearer than eager's."""
        return self.off_by(candidate) <= EXPLAINED * self.deviation

    def best(self, candidates: Iterable[tuple[str, Array]]) -> str:
        """The name of the candidate that explains the graph's values best, empty if none does."""
        best, least = "", float("inf")
        for name, values in candidates:
            if (error := self.off_by(values)) < least:
                best, least = name, error
        return best if least <= EXPLAINED * self.deviation else ""

    def graph_value(self, module: str, end: End) -> Array | None:
        """What the graph has for one end of a module, eager's value where that cannot be seen."""
        for anchor in self.anchors:
            if anchor.end == end and anchor.modules == (module,) and anchor.tensor in self.found:
                return self.found[anchor.tensor]
        return self.expected.get((module, end))

    def parameter(self, name: str) -> NDArray[np.float32] | None:
        """The reference's parameter as float32."""
        tensor = self.weights.get(name)
        return None if tensor is None else tensor.detach().float().numpy()

    def stored(self, name: str) -> NDArray[np.float32] | None:
        """The parameter as the file has it, with the axes of the reference; None if it is not stored as float."""
        initializer = next((key for key, names in self.sources.items() if name in names), None)
        tensor = next((each for each in self.graph.initializer if each.name == initializer), None)
        own = self.parameter(name)
        if tensor is None or own is None:
            return None
        array = self._part(stored_array(tensor, self.path.parent), name, self.sources[str(initializer)])
        if array.size != own.size or array.dtype.kind != "f":
            return None
        values: NDArray[np.float32] = array.astype(np.float32)
        if values.ndim == 2:  # files store linear weights either way around; the nearer one is meant
            ways = [way for way in (values, values.T) if way.shape == own.shape]
            return min(ways, key=lambda way: float(np.abs(way - own).sum()), default=None)
        return values if values.shape == own.shape else None

    def _part(self, array: NDArray[np.generic], name: str, names: tuple[str, ...]) -> NDArray[np.generic]:
        """Of an initializer that holds several parameters side by side on its last axis, the one that is asked for."""
        parts = [part for each in names if (part := self.parameter(each)) is not None]
        if len(names) == 1 or len(parts) != len(names) or array.size != sum(part.size for part in parts):
            return array
        stops = np.cumsum([len(part) for part in parts])
        found: NDArray[np.generic] = np.split(array, stops[:-1], axis=-1)[names.index(name)]
        return found

    def ancestors(self, tensor: str) -> list[onnx.NodeProto]:
        """The nodes that a tensor is computed from, as far back as tensors that equal eager's."""
        producers = {name: node for node in self.graph.node for name in node.output}
        good = {anchor.tensor for anchor in self.anchors if self.is_right(anchor)}
        seen, waiting = {}, [tensor]
        while waiting:
            name = waiting.pop()
            node = producers.get(name)
            if node is None or id(node) in seen or (name in good and name != tensor):
                continue
            seen[id(node)] = node
            waiting += node.input
        return list(seen.values())

    def is_right(self, anchor: Anchor) -> bool:
        """Whether an anchor's tensor is far nearer to eager's value than the first fault is."""
        wanted = [self.expected.get((module, anchor.end)) for module in anchor.modules]
        parts = [part for part in (wanted[:1] if anchor.end == "input" else wanted) if part is not None]
        if not parts or anchor.tensor not in self.found:
            return False
        whole, got = np.concatenate(parts, axis=-1), self.found[anchor.tensor]
        if whole.shape != got.shape:
            return False
        return bool(np.abs(got - whole).max() <= 1e-4 * (float(np.abs(whole).max()) or 1.0))
