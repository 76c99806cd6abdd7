"""A decoder's `.onnx` file in onnxruntime alone, compared with the module's own code on shapes that no export saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from torch import nn

from tests.zoo.animal import Animal
from tests.zoo.oracle import logits_of

Floats = NDArray[np.float64]

PIECES = (5, 1, 1, 9, 1, 13)
"""How a row is fed to a graph with a cache: a prompt, single tokens, and several behind a past."""
STEPS = (11, 1, 1, 1, 1, 1, 1)
"""How several rows are: onnxruntime's fused attention takes no more than a token of each behind a past."""
LARGEST = 1e-3
"""What a float32 graph may be off by, in units of the logits' own deviation; rounding makes 1e-5, faults 1e-1."""


def shapes_of(longest: int) -> tuple[tuple[int, int], ...]:
    """Rows and lengths that are compared; exports see none of them."""
    return (1, 1), (2, 5), (3, 17), (1, longest)


def ids_of(animal: Animal, rows: int, length: int) -> NDArray[np.int64]:
    return np.random.default_rng([rows, length]).integers(3, animal.vocab, (rows, length))


@dataclass(frozen=True, slots=True)
class PlainModel:
    """A session on a file, and the names that it takes."""

    session: onnxruntime.InferenceSession

    @classmethod
    def open(cls, path: Path) -> PlainModel:
        """The file in one thread on the CPU."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        return cls(onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]))

    @property
    def cached(self) -> bool:
        """Whether it takes keys and values of tokens that were fed before."""
        return any(each.name.startswith("past") for each in self.session.get_inputs())

    def run(self, ids: NDArray[np.int64], mask: NDArray[np.int64] | None = None) -> Floats:
        """The logits of `ids`, behind an empty past where there is one."""
        return self.fed(ids, (ids.shape[1],), mask)

    def fed(self, ids: NDArray[np.int64], pieces: Sequence[int], mask: NDArray[np.int64] | None = None) -> Floats:
        """The logits of `ids` fed in pieces, each behind the keys and values of those before, in order."""
        mask = np.ones_like(ids) if mask is None else mask
        positions = np.maximum(mask.cumsum(axis=1) - 1, 0)
        past = self._nothing(len(ids))
        logits, at = [], 0
        for piece in pieces:
            end = min(at + piece, ids.shape[1])
            new = slice(at, end)
            feeds = {
                "input_ids": ids[:, new],
                "attention_mask": mask[:, :end],
                "position_ids": positions[:, new],
                **past,
            }
            values = self._answer(feeds)
            logits.append(_scores(values).astype(np.float64))
            past = {name: values[_present(name)] for name in past}
            at = end
            if at == ids.shape[1]:
                break
        return np.concatenate(logits, axis=1) if len(logits) > 1 else logits[0]

    def _answer(self, feeds: Mapping[str, NDArray]) -> dict[str, NDArray]:
        inputs = self.session.get_inputs()
        if len(inputs) == 1:  # an export of others names its only input as it likes
            taken = {inputs[0].name: feeds["input_ids"]}
        else:
            taken = {each.name: feeds[each.name] for each in inputs}
        names = [each.name for each in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, taken), strict=True))

    def _nothing(self, rows: int) -> dict[str, NDArray]:
        """Empty keys and values, by the dims that the file names."""
        past = {}
        for each in self.session.get_inputs():
            if each.name.startswith("past"):
                shape = [dim if isinstance(dim, int) else (rows if "batch" in dim else 0) for dim in each.shape]
                past[each.name] = np.zeros(shape, np.float16 if "float16" in each.type else np.float32)
        return past


def _scores(values: Mapping[str, NDArray]) -> NDArray:
    """The logits among the outputs: by name, or the first that there is (a loss that was not asked for is None)."""
    if "logits" in values:
        return values["logits"]
    return next(value for value in values.values() if value is not None)


def _present(past: str) -> str:
    return past.replace("past_key_values", "present")


def largest_difference(path: Path, animal: Animal, module: nn.Module, context: int | None = None) -> float:
    """Between the file and `module` over all shapes, and in pieces and left-padded with a cache; in deviations.

    Infinite where the file runs on a shape with an output of another one.

    Args:
        context: the longest that the file promises; None is what the animal takes.

    Raises:
        Exception: onnxruntime's own, where the file does not load or does not run on a shape.
    """
    model = PlainModel.open(path)
    found = []
    longest = min(animal.context, context or animal.context)
    for rows, length in shapes_of(longest):
        ids = ids_of(animal, rows, length)
        found.append(_off(model.run(ids), _expected(module, ids)))
    if model.cached:
        ids = ids_of(animal, 1, min(sum(PIECES), longest))
        found.append(_off(model.fed(ids, PIECES), _expected(module, ids)))
        found.append(_padded(model, module, ids_of(animal, 2, sum(STEPS))))
    return max(found)


def _padded(model: PlainModel, module: nn.Module, ids: NDArray[np.int64], padding: int = 4) -> float:
    """Two rows, the second padded on the left, in steps, against each row alone."""
    alone = ids[1:, : ids.shape[1] - padding]
    padded = ids.copy()
    padded[1, padding:], padded[1, :padding] = alone[0], 0
    mask = np.ones_like(ids)
    mask[1, :padding] = 0
    logits = model.fed(padded, STEPS, mask)
    return max(_off(logits[:1], _expected(module, ids[:1])), _off(logits[1:, padding:], _expected(module, alone)))


def _expected(module: nn.Module, ids: NDArray[np.int64]) -> Floats:
    """The module's own logits; of every position where it gives the last one's alone, from prefixes."""
    logits = logits_of(module, ids, exact=True)
    if logits.ndim == 3 and logits.shape[1] == 1 < ids.shape[1]:
        prefixes = [logits_of(module, ids[:, :end], exact=True) for end in range(1, ids.shape[1])]
        logits = np.concatenate([*prefixes, logits], axis=1)
    return logits


def _off(found: Floats, expected: Floats) -> float:
    """The largest difference in deviations of what is expected; a file may give the last position alone."""
    if found.ndim == 3 and found.shape[1] == 1:
        expected = expected[:, -1:]
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - expected).max() / max(float(expected.std()), 1e-3))
