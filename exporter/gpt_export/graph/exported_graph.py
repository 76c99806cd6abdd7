"""What torch's exporter gives, made fit for the passes: weights as inputs, nodes named by module, shapes folded."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Mapping

import onnx_ir as ir
import torch
from onnx_ir.passes.common import (
    ClearMetadataAndDocStringPass,
    CommonSubexpressionEliminationPass,
    IdentityEliminationPass,
    InlinePass,
    RemoveUnusedFunctionsPass,
    RemoveUnusedNodesPass,
    RemoveUnusedOpsetsPass,
)
from onnxscript.optimizer import fold_constants
from torch import nn

from gpt_export.errors import GraphError
from gpt_export.graph.settled_shapes import settle_shapes
from gpt_export.runtime.signature import Signature
from gpt_export.weights.layout import Layout, set_layout

_FOLDED_ELEMENTS = 64
"""How many elements a folded constant may have: enough for shapes and axes, too few for tables."""
_NO_MODULE = "_empty_nn_module_stack"
"""How torch calls the place of a node that it made itself."""
_SCOPES = "pkg.torch.onnx.name_scopes"


def first_names(module: nn.Module) -> dict[str, str]:
    """For each name of a parameter or buffer of `module`, the first that its tensor has; tied weights share one.

    Complex tensors are left out: ONNX has none, so they are constants of the graph, as pairs of reals.
    """
    first: dict[int, str] = {}
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return {name: first.setdefault(id(tensor), name) for name, tensor in named if not tensor.is_complex()}


def tidy(model: ir.Model, weights: Mapping[str, str], signature: Signature, sizes: Mapping[str, int]) -> None:
    """Changes `model`, as torch's exporter gave it, to what a script's graph looks like.

    Args:
        weights: the names of parameters and buffers, each with the first name of its tensor.
        sizes: of the dims that vary, in the example.

    Raises:
        GraphError: a constant has no data, or the graph has other outputs than the signature.
    """
    InlinePass()(model)
    _take_weights_out(model, weights)
    _check_outputs(model.graph, signature, sizes)
    fold_constants(model, onnx_shape_inference=True, output_size_limit=_FOLDED_ELEMENTS)
    _take_weights_out(model, {})  # folding leaves initializers
    settle_shapes(model.graph)
    IdentityEliminationPass()(model)
    CommonSubexpressionEliminationPass()(model)
    RemoveUnusedNodesPass()(model)
    RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
    RemoveUnusedOpsetsPass()(model)
    _name_dims(model, signature)
    _name_nodes(model)
    ClearMetadataAndDocStringPass()(model)
    for values, specs in ((model.graph.inputs, signature.inputs), (model.graph.outputs, signature.outputs)):
        for value, spec in zip(values, specs, strict=False):
            value.name = spec.name
    model.graph.name = "main_graph"


def _take_weights_out(model: ir.Model, weights: Mapping[str, str]) -> None:
    """Makes inputs of initializers that are parameters or buffers, and nodes of the other constants.

    Of tied weights torch.export keeps the name that it met; the graph has the first.
    """
    graph = model.graph
    for name, value in list(graph.initializers.items()):
        del graph.initializers[name]
        tensor = value.const_value
        if name in weights:
            value.const_value = None
            value.name = weights[name]
            set_layout(value, Layout.of(weights[name]))
            graph.inputs.append(value)
        elif value.uses():
            _constant_in_place_of(graph, value, tensor)


def _constant_in_place_of(graph: ir.Graph, value: ir.Value, tensor: ir.TensorProtocol | None) -> None:
    raw = getattr(tensor, "raw", None)
    if tensor is None or (isinstance(raw, torch.Tensor) and raw.device.type == "meta"):
        raise GraphError(f"the constant {value.name} has no data without the module's weights")
    copied = ir.tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=value.name)
    node = ir.node("Constant", [], attributes={"value": copied}, name=str(value.name))
    made = node.outputs[0]
    made.shape, made.type = value.shape, value.type
    if len(graph):
        graph.insert_before(graph[0], node)
    value.replace_all_uses_with(made)


def _check_outputs(graph: ir.Graph, signature: Signature, sizes: Mapping[str, int]) -> None:
    """Looks for outputs that the graph computes for one size of a dim that should vary."""
    if len(graph.outputs) != len(signature.outputs):
        raise GraphError(f"the module returns {len(graph.outputs)} tensors, not {len(signature.outputs)}")
    for value, spec in zip(graph.outputs, signature.outputs, strict=True):
        if value.shape is None or len(value.shape) != len(spec.dims):
            continue
        for axis, (found, wanted) in enumerate(zip(value.shape, spec.dims, strict=True)):
            # A context of one token has but that size.
            if isinstance(found, int) and isinstance(wanted, str) and not found == sizes[wanted] == 1:
                raise GraphError(
                    f"axis {axis} of {spec.name} is {found} in the graph of torch.export, not {wanted}; "
                    "return one row of logits for each token"
                )


def _name_dims(model: ir.Model, signature: Signature) -> None:
    """Calls the sizes that vary what the signature calls them; a size computed from them stays unsaid."""
    names: dict[str, str] = {}
    for value, spec in zip(model.graph.inputs, signature.inputs, strict=False):
        for axis, dim in spec.dynamic_axes().items():
            if value.shape is not None and isinstance(value.shape[axis], ir.SymbolicDim):
                names[str(value.shape[axis].value)] = dim  # type: ignore[union-attr]
    for value in _values(model.graph):
        if value.shape is not None:
            value.shape = ir.Shape(
                [dim if isinstance(dim, int) else ir.SymbolicDim(names.get(str(dim.value))) for dim in value.shape]
            )


def _values(graph: ir.Graph) -> Iterable[ir.Value]:
    yield from graph.inputs
    for node in ir.traversal.RecursiveGraphIterator(graph):
        yield from node.outputs


def _name_nodes(model: ir.Model) -> None:
    """Names nodes `/blocks.0/attention/MatMul` after their module and operator, and their outputs after them."""
    taken: Counter[str] = Counter()
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        stem = "/".join(["", *_path(node.metadata_props.get(_SCOPES, "[]")), node.op_type])
        name = stem if not taken[stem] else f"{stem}_{taken[stem]}"
        taken[stem] += 1
        node.name = name
        for i, value in enumerate(node.outputs):
            value.name = f"{name}_output_{i}"


def _path(scopes: str) -> list[str]:
    """The steps from module to module, each less what the one before it says; the last scope is the node itself.

    A number is said with the list that it counts in: `trf_blocks.0`.
    """
    steps: list[str] = []
    before = ""
    for scope in ast.literal_eval(scopes)[:-1]:
        step = scope.removeprefix(f"{before}.") if before else scope
        if step.isdigit() and steps:
            steps[-1] += f".{step}"
        elif step and scope != before and not step.startswith(_NO_MODULE):
            steps.append(step)
        before = scope
    return steps
