"""Batch and sequence dims that must stay dynamic."""

from __future__ import annotations

from collections.abc import Iterator

from gpt_export.artifact.onnx_model import OnnxModel, Value
from gpt_export.linting.finding import Finding, Severity, tensor
from gpt_export.linting.registry import rule
from gpt_export.linting.settings import LintSettings

FROZEN_BATCH = rule(
    "GX101",
    Severity.ERROR,
    "the batch dim of ids, mask, positions, logits or cache is a number",
    "export again with a dynamic batch axis (torch.onnx.export: dynamic_axes or dynamic_shapes)",
)
FROZEN_SEQUENCE = rule(
    "GX102",
    Severity.ERROR,
    "the sequence dim of ids, mask, positions, logits or cache is a number",
    "export again with a dynamic sequence axis (torch.onnx.export: dynamic_axes or dynamic_shapes)",
)
LAST_POSITION_ONLY = rule(
    "GX103",
    Severity.WARNING,
    "the logits have one position whatever the sequence: scoring a text and comparing with eager need them all",
    "return the logits of every position, or of as many as an input asks for",
)
_PER_TOKEN = ("attention_mask", "position_ids", "token_type_ids")


def frozen_dims(model: OnnxModel, _settings: LintSettings) -> Iterator[Finding]:
    """Numbers where callers need to vary the size."""
    for value in [model.ids, *(model.input(name) for name in _PER_TOKEN)]:
        if value is not None and value.rank == 2:
            yield from _frozen(value, batch=0, sequence=1)
    if (logits := model.logits) is not None and logits.rank == 3:
        last_only = logits.dims is not None and logits.dims[1] == 1 and not _frozen_at(model.ids, 1)
        yield from _frozen(logits, batch=0, sequence=None if last_only else 1)
        if last_only:
            yield LAST_POSITION_ONLY.found(tensor(logits.name), f"{logits.name} is {logits}; dim 1 must be a name")
    for cache in model.caches:
        batch = 1 if cache.rank == 5 else 0  # keys and values of a layer in one tensor: [2, batch, heads, past, size]
        yield from _frozen(cache, batch=batch, sequence=_cache_sequence(cache))


def _frozen(value: Value, *, batch: int, sequence: int | None) -> Iterator[Finding]:
    if _frozen_at(value, batch):
        yield FROZEN_BATCH.found(tensor(value.name), f"{value.name} is {value}; dim {batch}, the batch, must be a name")
    if sequence is not None and _frozen_at(value, sequence):
        yield FROZEN_SEQUENCE.found(
            tensor(value.name), f"{value.name} is {value}; dim {sequence}, the sequence, must be a name"
        )


def _frozen_at(value: Value | None, axis: int) -> bool:
    return value is not None and value.dims is not None and axis < len(value.dims) and isinstance(value.dims[axis], int)


def _cache_sequence(cache: Value) -> int | None:
    """The axis of the positions: the last but one, unless only the last is dynamic (keys stored transposed)."""
    if cache.dims is None or len(cache.dims) < 4:
        return None
    usual = len(cache.dims) - 2
    return usual + 1 if isinstance(cache.dims[usual], int) and not isinstance(cache.dims[-1], int) else usual
