"""A module's operators as `torch.export` sees them, at every size of the dims that vary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from gpt_export.errors import GraphError
from gpt_export.graph.causes import explained, frame_in_text
from gpt_export.runtime.signature import Signature, TensorSpec

_SMALLEST = 2
"""The size from which torch.export takes a dim for one that varies; 0 and 1 it sees as special."""


def capture(module: nn.Module, signature: Signature, sizes: Mapping[str, int], device: str) -> ExportedProgram:
    """What `module` computes from the signature's inputs, in torch's operators.

    Args:
        sizes: of the dims that vary, in an example.
        device: where the module's weights are; "meta" for a module without.

    Raises:
        GraphError: torch.export cannot follow the module, or it computes one thing for these sizes and another, or
            nothing, for others.
    """
    sizes = distinct(sizes)
    examples = tuple(
        torch.zeros(spec.shape(sizes), dtype=getattr(torch, spec.dtype), device=device) for spec in signature.inputs
    )
    dynamic = tuple(dict.fromkeys(spec.dynamic_axes(), Dim.DYNAMIC) for spec in signature.inputs)
    try:
        # As torch's own ONNX exporter has it: a dim that may be 1 is not taken for one that broadcasts.
        with torch.no_grad(), torch.fx.experimental._config.patch(backed_size_oblivious=True):
            program = torch.export.export(module, examples, dynamic_shapes=dynamic, strict=False)
    except Exception as error:  # the user's code, and a dozen unrelated types of torch
        raise GraphError(
            f"torch.export cannot follow {type(module).__name__}: {explained(error)}; "
            "write that part with tensor operators that do not look at values"
        ) from error
    _refuse_frozen(program, signature, type(module).__name__)
    return program


def distinct(sizes: Mapping[str, int]) -> dict[str, int]:
    """`sizes` with those of 1 put to 2 and no two alike: torch.export takes equal sizes for the same."""
    chosen: dict[str, int] = {}
    for name, size in sorted(sizes.items(), key=lambda item: item[1], reverse=True):
        free = (other for other in _from(size) if other not in chosen.values())
        chosen[name] = next(free)
    return chosen


def _from(size: int) -> Iterator[int]:
    """`size`, what is below it down to 2, then what is above: a longer sequence may not fit the model's context."""
    yield from range(max(size, 1), _SMALLEST - 1, -1)
    yield from (other for other in range(size + 1, size + 10) if other >= _SMALLEST)


def _refuse_frozen(program: ExportedProgram, signature: Signature, name: str) -> None:
    """Raises if a dim that should vary was fixed, tied to another, or confined by a branch in the module's code."""
    placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    seen: dict[str, str] = {}
    for node_name, spec in zip(program.graph_signature.user_inputs, signature.inputs, strict=True):
        shape = placeholders[str(node_name)].meta["val"].shape
        for axis, dim in spec.dynamic_axes().items():
            size = shape[axis]
            if not isinstance(size, torch.SymInt):
                raise _frozen(program, name, spec, f"fixes {dim} at {size}")
            symbol = str(size.node.expr)
            if seen.setdefault(symbol, dim) != dim:
                raise _frozen(program, name, spec, f"makes {dim} equal to {seen[symbol]}")


def _frozen(program: ExportedProgram, name: str, spec: TensorSpec, what: str) -> GraphError:
    place = _guarding_frame(program)
    where = f" ({place[0]}, line {place[1]})" if place else ""
    return GraphError(
        f"the code of {name} {what}{where}, so that torch.export gives a graph for that size of {spec.name} alone; "
        "compute with shapes as tensors do, or leave that size out of Python's own conditions and loops"
    )


def _guarding_frame(program: ExportedProgram) -> tuple[str, int] | None:
    """The user's line at which the last condition on a size was taken."""
    environment = next(
        (
            value.fake_mode.shape_env
            for node in program.graph.nodes
            if isinstance(value := node.meta.get("val"), torch._subclasses.FakeTensor)
        ),
        None,
    )
    for guard in reversed(getattr(environment, "guards", ())):
        if (place := frame_in_text(str(getattr(guard, "sloc", "")))) is not None:
            return place
    return None
