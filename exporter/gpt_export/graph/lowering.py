"""Torch's operators to those that have an ONNX form, node by node.

torch's exporter does it by running the whole program again, three times, with every size a symbol: for 12 layers that
is most of the time of an export, and few nodes change by it. Here the nodes that must change are changed where they
are. What that cannot do (writing into views, control flow) is left to torch.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.fx.experimental.proxy_tensor import make_fx
from torch.onnx._internal.exporter import _decomp, _fx_passes
from torch.onnx._internal.fx.passes import type_promotion

from gpt_export.graph.complex_moves import moves_complex, on_pairs
from gpt_export.graph.mutation import NotLocalError, without_mutation

logger = logging.getLogger(__name__)

_ATEN = torch.ops.aten
_SAME_AS_INPUT = frozenset(
    {
        _ATEN.alias.default,
        _ATEN.clone.default,
        _ATEN.contiguous.default,
        _ATEN.detach.default,
        _ATEN.detach_.default,
        _ATEN.dropout.default,
        _ATEN.feature_dropout.default,
        _ATEN.alpha_dropout.default,
        _ATEN.lift_fresh.default,
        _ATEN.lift_fresh_copy.default,
    }
)
"""Operators whose result is their first input once nothing is written to; of dropout, when it does not train."""
_CHECKS = frozenset({"_assert_tensor_metadata", "_assert_async", "_assert_scalar", "sym_constrain_range_for_size"})
_PLACE = ("nn_module_stack", "stack_trace")
"""What a node's facts say of where in the module it is."""
_patching = threading.RLock()


def _variance(x: Tensor, dims: list[int] | None, correction: float, *, keepdim: bool) -> Tensor:
    """The variance as a hand would write it; torch's own goes through shapes that were broadcast by hand."""
    axes = dims or list(range(x.ndim))
    centred = x - x.mean(axes, keepdim=True)
    variance = (centred * centred).mean(axes, keepdim=keepdim)
    if correction == 0:
        return variance
    count = math.prod(x.shape[axis] for axis in axes)
    return variance * (count / (count - correction))


def _var_dim(x: Tensor, dim: list[int] | None, unbiased: bool = True, keepdim: bool = False) -> Tensor:
    return _variance(x, dim, float(unbiased), keepdim=keepdim)


def _var_correction(
    x: Tensor, dim: list[int] | None = None, *, correction: float | None = None, keepdim: bool = False
) -> Tensor:
    return _variance(x, dim, 1.0 if correction is None else correction, keepdim=keepdim)


def _slice_scatter(
    x: Tensor, source: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    """`x` with `source` in a part of one axis, joined from pieces; a scatter hides in numbers what it does to axes."""
    if step != 1:
        return _ATEN.slice_scatter.default(x, source, dim, start, end, step)  # type: ignore[no-any-return]
    first, size = 0 if start is None else start, x.shape[dim]
    if isinstance(first, int) and isinstance(size, int):
        first = min(max(first + size if first < 0 else first, 0), size)
    before, behind = x.narrow(dim, 0, first), _ATEN.slice.Tensor(x, dim, first + source.shape[dim], x.shape[dim])
    pieces = [piece for piece in (before, source, behind) if not _is_empty(piece, dim)]
    return torch.cat(pieces, dim)


def _is_empty(x: Tensor, dim: int) -> bool:
    return isinstance(x.shape[dim], int) and x.shape[dim] == 0


_OWN: Mapping[Any, Callable[..., Any]] = {
    _ATEN.var.dim: _var_dim,
    _ATEN.var.correction: _var_correction,
    _ATEN.slice_scatter.default: _slice_scatter,
}
"""Decompositions that give a shorter graph than torch's, or one whose axes are plain to see."""


@contextlib.contextmanager
def lowered_in_place() -> Iterator[list[ExportedProgram]]:
    """Lets torch's ONNX exporter lower programs node by node, and whole only where that cannot be done.

    The list that comes with it gets each program as it is after that.
    """
    lowered: list[ExportedProgram] = []
    whole = _fx_passes.decompose_with_registry
    interpreter = type_promotion._TypePromotionInterpreter
    rerun = interpreter.run_node

    def decompose(program: ExportedProgram, registry: Any) -> ExportedProgram:
        registered = set(_decomp.get_onnx_implemented_overloads(registry)) - {_ATEN.slice_scatter.default}
        table = {**_decomp.create_onnx_friendly_decomposition_table(registered), **_OWN}
        try:
            _lower(program, registered, table)
        except NotLocalError as reason:
            logger.info("lowering the whole program: %s", reason)
            program = whole(program, registry)
            with contextlib.suppress(NotLocalError):  # now it writes into nothing, and some of `_OWN` may fit
                _lower(program, registered, table)
        lowered.append(program)
        return program

    with _patching:
        _fx_passes.decompose_with_registry = decompose  # type: ignore[assignment]
        interpreter.run_node = _promote_alone  # type: ignore[method-assign,assignment]
        try:
            yield lowered
        finally:
            _fx_passes.decompose_with_registry = whole
            interpreter.run_node = rerun  # type: ignore[method-assign]


def _promote_alone(interpreter: Any, node: fx.Node) -> Any:
    """Casts the inputs of `node` where torch does so silently; its value is the one that it has, not run again."""
    with interpreter._set_current_node(node):
        rule = type_promotion.get_type_promotion_rule(node, interpreter.type_promotion_table)
        if rule:
            interpreter._maybe_promote_node(node, rule)
        if node.op == "call_function" and "val" in node.meta:
            return node.meta["val"]
    return fx.Interpreter.run_node(interpreter, node)


def _lower(program: ExportedProgram, registered: set[Any], table: dict[Any, Callable[..., Any]]) -> None:
    """Changes the graph of `program` so that all its operators are among `registered`, or leaves it as it was.

    Raises:
        NotLocalError: that takes more than changing single nodes.
    """
    graph = without_mutation(program)
    for node in list(graph.nodes):
        if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
            _lower_node(node, registered, table)
        elif node.op not in ("placeholder", "output") and not _is_plain(node):
            raise NotLocalError(f"{node.target} is no operator")
    graph.eliminate_dead_code()
    graph.lint()
    program.graph_module.graph = graph
    program.graph_module.recompile()
    for spec, result in zip(program.graph_signature.output_specs, graph.output_node().args[0], strict=True):  # type: ignore[arg-type]
        if isinstance(result, fx.Node):
            spec.arg.name = result.name


def _is_plain(node: fx.Node) -> bool:
    """Whether `node` is arithmetic with sizes or takes an item, which torch translates as it is."""
    return node.op == "call_function" and getattr(node.target, "__module__", "") in ("_operator", "math")


def _lower_node(node: fx.Node, registered: set[Any], table: dict[Any, Callable[..., Any]]) -> None:
    if str(node.target).split(".")[1] in _CHECKS:
        node.graph.erase_node(node)
    elif node.target in _SAME_AS_INPUT and not _trains(node):
        _replace(node, node.args[0])
    elif moves_complex(node):
        on_pairs(node)
    elif node.target not in registered:
        _expand(node, registered, table)


def _trains(node: fx.Node) -> bool:
    return "dropout" in str(node.target) and bool(node.args[2])


def _expand(node: fx.Node, registered: set[Any], table: dict[Any, Callable[..., Any]]) -> None:
    """Puts in place of `node` the operators that torch computes it by."""
    tensors, call = _as_function(node)
    fake_mode = next((t.fake_mode for t in tensors.values() if isinstance(t, torch._subclasses.FakeTensor)), None)
    if fake_mode is None:
        raise NotLocalError(f"{node.target} has no tensor among its inputs")
    try:
        with fake_mode, torch._dispatch.python.enable_python_dispatcher():
            inner = make_fx(call, decomposition_table=table, pre_dispatch=False)(*tensors.values())
    except Exception as error:  # whatever a decomposition trips over
        raise NotLocalError(f"{node.target} does not decompose by itself: {error}") from error
    for part in inner.graph.nodes:
        if part.op == "call_function" and isinstance(part.target, torch._ops.OpOverload):
            if part.target not in registered and part.target not in _SAME_AS_INPUT:
                raise NotLocalError(f"{node.target} needs {part.target}, which has no ONNX form")
        elif part.op not in ("placeholder", "output") and not _is_plain(part):
            raise NotLocalError(f"{node.target} needs {part.target}")
    known = dict(zip((part for part in inner.graph.nodes if part.op == "placeholder"), tensors, strict=True))
    with node.graph.inserting_before(node):
        result = node.graph.graph_copy(inner.graph, known)
    _describe(node, inner.graph, known)
    if not isinstance(result, fx.Node):
        raise NotLocalError(f"{node.target} gives several tensors")
    _replace(node, result)


def _as_function(node: fx.Node) -> tuple[dict[fx.Node, Any], Callable[..., Any]]:
    """The values that `node` reads, by the nodes that give them, and the node as a function of those values."""
    inputs = {arg: arg.meta["val"] for arg in node.all_input_nodes}

    def call(*values: Any) -> Any:
        given = dict(zip(inputs, values, strict=True))
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda arg: given[arg])
        return node.target(*args, **kwargs)  # type: ignore[operator]

    return inputs, call


def _describe(node: fx.Node, inner: fx.Graph, copies: dict[fx.Node, fx.Node]) -> None:
    """Gives the copies of the inner nodes the place in the module that `node` has."""
    for part in inner.nodes:
        if part.op == "call_function":
            copies[part].meta = dict(part.meta)
            copies[part].meta.update((key, node.meta[key]) for key in _PLACE if key in node.meta)


def _replace(node: fx.Node, other: Any) -> None:
    node.replace_all_uses_with(other)
    node.graph.erase_node(node)
