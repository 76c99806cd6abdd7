"""What the inputs and outputs of somebody else's graph mean, from their names and shapes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import DTypeLike, NDArray

from gpt_export.errors import GraphError
from gpt_export.gate.case import Case
from gpt_export.gate.parity import Logits
from gpt_export.gate.runs import Run
from gpt_export.gate.tracing.activations import Array, Feed

_NUMPY_TYPES: dict[str, DTypeLike] = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(bool)": np.bool_,
}


@dataclass(frozen=True, slots=True)
class Roles:
    """Which input is what; an absent one is None or empty."""

    ids: str
    logits: str
    mask: str | None
    positions: str | None
    past: tuple[str, ...]
    """Past keys and values in the order of `present`."""
    present: tuple[str, ...]
    flag: str | None
    """A scalar that says whether the past is used, as merged decoders have it."""
    types: dict[str, DTypeLike]
    past_dims: dict[str, tuple[Any, ...]]
    batch: int | None
    """The batch size that the file is frozen to, None if any will do."""
    sequence: int | None
    """The sequence length that the file is frozen to, None if any will do."""
    notes: tuple[str, ...]


def match_roles(session: ort.InferenceSession, vocab_size: int) -> Roles:
    """The roles of a loaded graph's inputs and outputs.

    Raises:
        GraphError: there is no input of ids, no output of logits, or an input whose meaning is not known.
    """
    inputs, outputs = session.get_inputs(), session.get_outputs()
    whole = [value for value in inputs if "int" in value.type and len(value.shape) == 2]
    mask = _only(value.name for value in whole if "mask" in value.name.lower())
    positions = _only(value.name for value in whole if "position" in value.name.lower())
    ids = [value for value in whole if value.name not in (mask, positions)]
    if len(ids) != 1:
        names = [value.name for value in inputs]
        raise GraphError(f"the file has {len(ids)} inputs that could be token ids among {names}, it needs one of them")
    logits = _logits_of(outputs, vocab_size)
    past = [value for value in inputs if "float" in value.type and len(value.shape) == 4]
    present = [value.name for value in outputs if value.name != logits and len(value.shape) == 4]
    flag = _only(value.name for value in inputs if value.type == "tensor(bool)")
    known = {ids[0].name, mask, positions, flag, *(value.name for value in past)}
    if unknown := [value.name for value in inputs if value.name not in known]:
        raise GraphError(f"the file has inputs of unknown meaning: {unknown}; ids, mask, positions and past are known")
    ordered = _in_order([value.name for value in past], present)
    batch, sequence = (dim if isinstance(dim, int) else None for dim in ids[0].shape)
    paired: tuple[str, ...] = ()
    if past and ordered is None:
        counts = f"{len(past)} past inputs and {len(present)} present outputs"
        paired = (f"{counts} do not pair up; only an empty past is fed",)
    return Roles(
        ids=ids[0].name,
        logits=logits,
        mask=mask,
        positions=positions,
        past=tuple(value.name for value in past),
        present=ordered or (),
        flag=flag,
        types={value.name: _NUMPY_TYPES.get(value.type, np.float32) for value in inputs},
        past_dims={value.name: tuple(value.shape) for value in past},
        batch=batch,
        sequence=sequence,
        notes=(*paired, *_lacking(bool(past), mask, positions), *_frozen(batch, sequence)),
    )


def _logits_of(outputs: Sequence[Any], vocab_size: int) -> str:
    """The name of the output that is the logits: by its name, or else by its shape."""
    for value in outputs:
        if value.name == "logits" or (len(value.shape) == 3 and value.shape[2] in (vocab_size, None)):
            return str(value.name)
    raise GraphError(
        f"the file has no output of {vocab_size} logits among {[value.name for value in outputs]}; "
        "compare it with the checkpoint it was made from"
    )


def _lacking(past: bool, mask: str | None, positions: str | None) -> Iterator[str]:
    """Notes on what the file does not take, and what is not compared for that."""
    if past and not positions:
        yield "there is no input of positions; left-padded rows are not compared"
    if not past:
        yield "there is no past; every case is run in one pass"
    if not mask:
        yield "there is no mask; padded rows are not compared"


def _frozen(batch: int | None, sequence: int | None) -> Iterator[str]:
    for name, size in (("batch", batch), ("sequence", sequence)):
        if size is not None:
            yield f"the {name} axis is frozen to {size}; only that shape is compared"


def takes(roles: Roles, case: Case) -> bool:
    """Whether a graph with these roles can run the case and is meant to give the right answer on it."""
    left_padded = bool((case.mask[:, 0] == 0).any())
    return (
        (case.needs == "ids" or roles.mask is not None)
        and (case.needs != "cache" or bool(roles.present))
        and (not left_padded or roles.positions is not None)
        and roles.batch in (None, case.ids.shape[0])
        and roles.sequence in (None, case.ids.shape[1])
    )


def feed_of(roles: Roles) -> Feed:
    """The feed of a graph with these roles; see `gpt_export.gate.tracing.activations.Feed`."""

    def feed(session: ort.InferenceSession, case: Case, tensors: Sequence[str]) -> list[dict[str, Array]]:
        past = {name: _empty(roles, name, len(case.ids)) for name in roles.past}
        positions = np.maximum(np.cumsum(case.mask, axis=1) - 1, 0)
        chunks = []
        for start, stop in case.cuts(cached=bool(roles.present)):
            inputs: dict[str, NDArray[Any]] = {roles.ids: case.ids[:, start:stop], **past}
            if roles.mask:
                inputs[roles.mask] = case.mask[:, :stop]
            if roles.positions:
                inputs[roles.positions] = positions[:, start:stop]
            if roles.flag:
                inputs[roles.flag] = np.array([start > 0])
            typed = {name: np.ascontiguousarray(array, roles.types[name]) for name, array in inputs.items()}
            outputs = session.run([*tensors, *roles.present], typed)
            chunks.append(dict(zip(tensors, outputs, strict=False)))
            past = dict(zip(roles.past, outputs[len(tensors) :], strict=False)) or past
        return chunks

    return feed


def run_of_roles(session: ort.InferenceSession, roles: Roles) -> Run:
    """The run of a graph with these roles; logits of another float type are widened to float32."""
    feed = feed_of(roles)

    def run(case: Case) -> Logits:
        parts = [chunk[roles.logits].astype(np.float32, copy=False) for chunk in feed(session, case, [roles.logits])]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    return run


def row_by_row(run: Run) -> Run:
    """`run` for graphs that take several tokens behind a past in one row alone: such a case is run row by row."""

    def run_rows(case: Case) -> Logits:
        if not case.several_behind_past:
            return run(case)
        return np.concatenate([run(case.row(index)) for index in range(len(case.ids))])

    return run_rows


def _only(names: Any) -> str | None:
    found = list(names)
    return found[0] if len(found) == 1 else None


def _in_order(past: list[str], present: list[str]) -> tuple[str, ...] | None:
    """The present output of each past input, by layer number and kind; None if they do not pair up."""
    if len(past) != len(present):
        return None
    keyed = {_key(name): name for name in present}
    found = tuple(keyed.get(_key(name), "") for name in past)
    return found if all(found) and len(keyed) == len(present) else tuple(present)


def _key(name: str) -> tuple[str, str]:
    number = re.search(r"\d+", name)
    kind = re.search(r"key|value", name.lower().replace("key_value", ""))
    return (number[0] if number else "", kind[0] if kind else "")


def _empty(roles: Roles, name: str, batch: int) -> NDArray[Any]:
    """A past of no tokens: the axis that is dynamic, besides the batch, has none."""
    dims = [dim if isinstance(dim, int) else 0 for dim in roles.past_dims[name]]
    return np.zeros((batch, *dims[1:]), roles.types[name])
