"""The names, element types and dims that callers of a graph may rely on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

DType = Literal["int64", "float32"]
Dim = int | str

INPUT_IDS = "input_ids"
LOGITS = "logits"
BATCH = "batch_size"
SEQUENCE = "sequence_length"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output; a dim is an int when static, a name when dynamic."""

    name: str
    dtype: DType
    dims: tuple[Dim, ...]

    def dynamic_axes(self) -> dict[int, str]:
        """Axis number to name, for the axes that vary."""
        return {axis: dim for axis, dim in enumerate(self.dims) if isinstance(dim, str)}

    def to_dict(self) -> dict[str, Any]:
        """JSON values: `name`, `dtype`, `dims`."""
        return {"name": self.name, "dtype": self.dtype, "dims": list(self.dims)}


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs of a graph, in order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def uncached(vocab_size: int) -> Signature:
    """`input_ids` (batch, sequence) to `logits` (batch, sequence, vocabulary)."""
    return Signature(
        inputs=(TensorSpec(INPUT_IDS, "int64", (BATCH, SEQUENCE)),),
        outputs=(TensorSpec(LOGITS, "float32", (BATCH, SEQUENCE, vocab_size)),),
    )
