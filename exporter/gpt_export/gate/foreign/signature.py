"""What the inputs and outputs of somebody else's graph mean, from their names and shapes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import DTypeLike, NDArray

from gpt_export.errors import ConfigError, GraphError
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


ROLES = ("ids", "mask", "positions", "types", "flag", "keep", "logits")
"""What an input or output may be stated to be; pasts are known by their shape."""
_LISTED = ", ".join(ROLES)
_RANKS = (4, 5)
"""Axes of a past: (batch, heads, past, size), and with keys and values in one tensor (2, batch, heads, past, size)."""


@dataclass(frozen=True, slots=True)
class Roles:
    """Which input is what; an absent one is None or empty."""

    ids: str
    logits: str
    mask: str | None
    positions: str | None
    types: str | None
    """Token types, which are fed zeros: a GPT has none."""
    past: tuple[str, ...]
    """Past keys and values in the order of `present`."""
    present: tuple[str, ...]
    flag: str | None
    """A scalar that says whether the past is used, as merged decoders have it."""
    keep: str | None
    """How many of the last positions get logits, which is fed 0 for all of them; where it has a default it is left."""
    dtypes: dict[str, DTypeLike]
    dims: dict[str, tuple[Any, ...]]
    batch: int | None
    """The batch size that the file is frozen to, None if any will do."""
    sequence: int | None
    """The sequence length that the file is frozen to, None if any will do."""
    notes: tuple[str, ...]


def match_roles(session: ort.InferenceSession, vocab_size: int, stated: Mapping[str, str] | None = None) -> Roles:
    """The roles of a loaded graph's inputs and outputs.

    Args:
        stated: by role (of `ROLES`), the input or output that has it; the others are guessed.

    Raises:
        GraphError: there is no input of ids, no output of logits, or an input whose meaning is not known.
    """
    said = stated or {}
    inputs, outputs = session.get_inputs(), session.get_outputs()
    _refuse_encoders(inputs, outputs, said)
    flat = [value for value in inputs if len(value.shape) == 2 and value.name not in said.values()]
    whole = [value.name for value in flat if "int" in value.type]
    mask = said.get("mask") or _only(value.name for value in flat if "mask" in value.name.lower())
    positions = said.get("positions") or _only(name for name in whole if "position" in name.lower())
    types = said.get("types") or _only(name for name in whole if "type" in name.lower())
    ids = said.get("ids") or _ids_among([name for name in whole if name not in (mask, positions, types)], inputs)
    logits = said.get("logits") or _logits_of(outputs, vocab_size)
    past = [value for value in inputs if "float" in value.type and len(value.shape) in _RANKS]
    present = [value.name for value in outputs if value.name != logits and len(value.shape) in _RANKS]
    flag = said.get("flag") or _only(value.name for value in inputs if value.type == "tensor(bool)")
    keep = said.get("keep") or _only(value.name for value in inputs if "logits_to_keep" in value.name.lower())
    _refuse_unknown(inputs, {ids, mask, positions, types, flag, keep, *(value.name for value in past)})
    ordered = _in_order([value.name for value in past], present)
    shape = next(value.shape for value in inputs if value.name == ids)
    batch, sequence = (dim if isinstance(dim, int) else None for dim in shape)
    return Roles(
        ids=ids,
        logits=logits,
        mask=mask,
        positions=positions,
        types=types,
        past=tuple(value.name for value in past),
        present=ordered or (),
        flag=flag,
        keep=keep,
        dtypes={value.name: _NUMPY_TYPES.get(value.type, np.float32) for value in inputs},
        dims={value.name: tuple(value.shape) for value in inputs},
        batch=batch,
        sequence=sequence,
        notes=(
            *_odd(len(past), len(present), ordered, types),
            *_lacking(bool(past), mask, positions),
            *_frozen(batch, sequence),
        ),
    )


def stated_roles(session: ort.InferenceSession, pairs: Sequence[str]) -> dict[str, str]:
    """By role, the input or output that `NAME=ROLE` gives it.

    Raises:
        ConfigError: it is no such pair, the role is not known, or the file has no such name.
    """
    names = [value.name for value in (*session.get_inputs(), *session.get_outputs())]
    found = {}
    for pair in pairs:
        name, _, role = pair.rpartition("=")
        if role not in ROLES and name in ROLES:  # the other way round
            name, role = role, name
        if role not in ROLES:
            raise ConfigError(f"{pair!r} states no role; pass NAME=ROLE, with a role of {_LISTED}")
        if name not in names:
            raise ConfigError(f"the file has no input or output {name!r}; it has {names}")
        found[role] = name
    return found


def _ids_among(names: Sequence[str], inputs: Sequence[Any]) -> str:
    named = [name for name in names if "input_ids" in name.lower()]
    found = names if len(names) == 1 else named
    if len(found) != 1:
        shown = [value.name for value in inputs]
        raise GraphError(
            f"the file has {len(names)} inputs that could be token ids among {shown}, it needs one of them; state "
            "it by "
            "--role INPUT=ids"
        )
    return found[0]


def _refuse_unknown(inputs: Sequence[Any], known: Set[str | None]) -> None:
    if unknown := [value.name for value in inputs if value.name not in known]:
        raise GraphError(
            f"the file has inputs of unknown meaning: {unknown}; state the meaning by --role INPUT=ROLE, of {_LISTED}"
        )


def _refuse_encoders(inputs: Sequence[Any], outputs: Sequence[Any], said: Mapping[str, str]) -> None:
    """Refuses halves of encoder-decoders, and encoders, by what they take and give."""
    if fed := [value.name for value in inputs if "encoder" in value.name.lower() and "float" in value.type]:
        raise GraphError(
            f"the file is the decoder of an encoder-decoder, it takes {fed[0]}; only decoders that take ids alone are "
            "compared"
        )
    hidden = [value.name for value in outputs if re.fullmatch(r"(last_)?hidden_states?|pooler_output", value.name)]
    if hidden and "logits" not in said and not any(value.name == "logits" for value in outputs):
        raise GraphError(
            f"the file is an encoder or a body without a head, it gives {hidden[0]} and no logits; export the "
            "model with "
            "its head (a causal language model), or state them by --role OUTPUT=logits"
        )


def _logits_of(outputs: Sequence[Any], vocab_size: int) -> str:
    """The name of the output that is the logits: by its name, or else by its shape."""
    for value in outputs:
        if value.name == "logits" or (len(value.shape) == 3 and value.shape[2] in (vocab_size, None)):
            return str(value.name)
    raise GraphError(
        f"the file has no output of {vocab_size} logits among {[value.name for value in outputs]}; "
        "compare it with the checkpoint it was made from, or state it by --role OUTPUT=logits"
    )


def _odd(past: int, present: int, ordered: tuple[str, ...] | None, types: str | None) -> Iterator[str]:
    """Notes on a past that cannot be carried on, and on what is fed although a GPT does not have it."""
    if past and ordered is None:
        yield f"{past} past inputs and {present} present outputs do not pair up; only an empty past is fed"
    if types:
        yield f"{types} is fed zeros, which a GPT without token types does not have"


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
            if roles.types:
                inputs[roles.types] = np.zeros_like(case.ids[:, start:stop])
            if roles.flag:
                inputs[roles.flag] = np.array([start > 0])
            if roles.keep:
                inputs[roles.keep] = np.zeros([1] * len(roles.dims[roles.keep]))
            typed = {name: np.asarray(array, roles.dtypes[name], order="C") for name, array in inputs.items()}
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
    dims = [dim if isinstance(dim, int) else 0 for dim in roles.dims[name]]
    dims[len(dims) - 4] = batch  # behind the pair of keys and values, where they are one tensor
    return np.zeros(dims, roles.dtypes[name])
