"""A module's operators as `torch.export` sees them, at every size of the dims that vary."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from traceback import FrameSummary
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from gpt_export.errors import GraphError
from gpt_export.graph.attention_calls import attention_followed
from gpt_export.graph.causes import chain_of, deepest_of_users, explained, user_frame
from gpt_export.graph.experts import experts_side_by_side
from gpt_export.runtime.signature import BATCH, SEQUENCE, Signature

_SMALLEST = 2
"""The size from which a condition on a size says something; 1 torch itself sees as special."""


def capture(
    module: nn.Module, signature: Signature, sizes: Mapping[str, int], device: str, longest: int | None = None
) -> ExportedProgram:
    """What `module` computes from the signature's inputs, in torch's operators.

    Args:
        sizes: of the dims that vary, in an example.
        device: where the module's weights are; "meta" for a module without.
        longest: the longest sequence that the module takes, so far as it is known.

    Raises:
        GraphError: torch.export cannot follow the module, or it computes one thing for these sizes and another, or
            nothing, for others.
    """
    sizes = distinct(sizes)
    examples = tuple(
        torch.zeros(spec.shape(sizes), dtype=getattr(torch, spec.dtype), device=device) for spec in signature.inputs
    )
    dynamic = tuple(dict.fromkeys(spec.dynamic_axes(), Dim.AUTO) for spec in signature.inputs)
    # AUTO fixes a dim in silence where DYNAMIC raises without a line; `_refuse_frozen` finds the line.
    try:
        # As torch's own ONNX exporter has it: a dim that may be 1 is not taken for one that broadcasts.
        oblivious = torch.fx.experimental._config.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]
        with torch.no_grad(), oblivious, attention_followed(), experts_side_by_side(module):
            program = torch.export.export(module, examples, dynamic_shapes=dynamic, strict=False)
    except Exception as error:  # the user's code, and a dozen unrelated types of torch
        raise GraphError(f"torch.export cannot follow {type(module).__name__}: {_refusal(error)}") from error
    _refuse_frozen(program, signature, sizes, longest, type(module).__name__)
    _name_inputs(program, signature)
    return program


def _name_inputs(program: ExportedProgram, signature: Signature) -> None:
    """Calls what the module is given as the signature does: a copy of a graph renames an argument called `input`."""
    placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    arguments = [spec.arg for spec in program.graph_signature.input_specs if spec.kind == InputKind.USER_INPUT]
    for argument, spec in zip(arguments, signature.inputs, strict=True):
        node = placeholders[argument.name]
        node._rename(spec.name)
        program.graph_signature.replace_all_uses(argument.name, node.name)
        node.target = node.name


def _refusal(error: Exception) -> str:
    """Why the module was not followed, and what to do."""
    if any(isinstance(link, GuardOnDataDependentSymNode) for link in chain_of(error)) or "data-dependent" in str(error):
        place = user_frame(error)
        where = f" ({place[0]}, line {place[1]})" if place else ""
        return (
            f"a size, a condition or a loop in Python depends on the values of a tensor{where}; "
            "compute both ways and choose with torch.where"
        )
    return f"{explained(error)}; write that part with operators on tensors"


def distinct(sizes: Mapping[str, int]) -> dict[str, int]:
    """`sizes` with no two alike, since torch.export takes equal sizes for the same, and a batch of 2 or more.

    Where two are alike the batch gives way: it has no limit, while a longer sequence may not fit the model's context.
    """
    chosen: dict[str, int] = {}
    for name, size in sorted(sizes.items(), key=lambda item: item[0] == BATCH):
        size = max(size, _SMALLEST) if name == BATCH else size
        chosen[name] = next(other for other in itertools.count(size) if other not in chosen.values())
    return chosen


def _refuse_frozen(
    program: ExportedProgram, signature: Signature, sizes: Mapping[str, int], longest: int | None, name: str
) -> None:
    """Raises if a dim that should vary was fixed, tied to another, or confined by a branch in the module's code."""
    placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    guards = _guards(program)
    dims: dict[Any, str] = {}
    for node_name, spec in zip(program.graph_signature.user_inputs, signature.inputs, strict=True):
        shape = placeholders[str(node_name)].meta["val"].shape
        for axis, dim in spec.dynamic_axes().items():
            size = shape[axis]
            if not isinstance(size, torch.SymInt) or size.node.expr.is_number:
                raise _frozen(name, f"fixes {dim} at {size}", _place_of_equality(guards))
            if dims.setdefault(size.node.expr, dim) != dim:
                raise _frozen(name, f"makes {dim} equal to {dims[size.node.expr]}", _place_of_equality(guards))
    for guard in guards:
        place = _place_of(guard)
        if place is None and type(guard.expr).__name__ == "Unequality":
            continue  # torch's own question whether two sizes happen to be equal, of which it may not make use
        if (broken := _broken_at(guard.expr, dims, sizes, longest)) is not None:
            raise _frozen(name, f"does something else at {broken}", place)


def _guards(program: ExportedProgram) -> list[Any]:
    """The conditions on sizes that the program's nodes rest on, as torch's symbolic shapes recorded them."""
    values = (node.meta.get("val") for node in program.graph.nodes)
    fake = next((value for value in values if isinstance(value, torch._subclasses.FakeTensor)), None)
    environment = None if fake is None else fake.fake_mode.shape_env
    return list(getattr(environment, "guards", ()))


def _place_of_equality(guards: list[Any]) -> tuple[str, int] | None:
    """Where the last size was found equal to another or to a number."""
    equalities = [guard for guard in guards if type(guard.expr).__name__ == "Equality"]
    return next((place for guard in reversed(equalities) if (place := _place_of(guard))), None)


def _place_of(guard: Any) -> tuple[str, int] | None:
    """The user's line at which a condition was taken."""
    frame = getattr(guard.sloc, "framework_loc", None)
    return deepest_of_users([(frame.filename, frame.lineno or 0)]) if isinstance(frame, FrameSummary) else None


def _broken_at(condition: Any, dims: Mapping[Any, str], sizes: Mapping[str, int], longest: int | None) -> str | None:
    """Sizes, in words, at which `condition` does not hold although the module should take them; None if it holds.

    Sizes of 1 are not tried: torch itself tells them apart, to the same end.
    """
    symbols = [symbol for symbol in condition.free_symbols if symbol in dims]
    if len(symbols) != len(condition.free_symbols):
        return None
    for symbol in symbols:
        others = {other: sizes[dims[other]] for other in symbols if other != symbol}
        for size in _tried(sizes[dims[symbol]], longest if dims[symbol] == SEQUENCE else None):
            if condition.subs({**others, symbol: size}) == False:  # noqa: E712  # sympy's false is not Python's
                return f"{dims[symbol]} {size}"
    return None


def _tried(example: int, longest: int | None) -> list[int]:
    bound = math.inf if longest is None else longest
    further = [example + 1, example + 2, 2 * example + 1, *([] if longest is None else [longest])]
    return [size for size in (*range(_SMALLEST, example), *further) if size <= bound]


def _frozen(name: str, what: str, place: tuple[str, int] | None) -> GraphError:
    where = f" ({place[0]}, line {place[1]})" if place else ""
    return GraphError(
        f"the code of {name} {what}{where}, and torch.export keeps to one size's way; "
        "compute with tensors there, or leave that size out of Python's conditions and loops"
    )
