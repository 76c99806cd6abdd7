"""Parts of the graph that no output depends on, and weights that callers could overwrite."""

from __future__ import annotations

from collections.abc import Iterator

from gpt_export.artifact.element_sizes import count, size_bytes
from gpt_export.artifact.onnx_model import OnnxModel, node_name
from gpt_export.linting.finding import Finding, Severity, node, tensor
from gpt_export.linting.registry import rule
from gpt_export.linting.settings import LintSettings
from gpt_export.linting.tensors import readable_size, shown

UNUSED_WEIGHT = rule(
    "GX501",
    Severity.WARNING,
    "an initializer that no node reads: bytes that are shipped and loaded for nothing",
    "remove it (onnx_ir.passes.common.RemoveUnusedNodesPass does)",
)
OVERRIDABLE_WEIGHT = rule(
    "GX502",
    Severity.WARNING,
    "a weight is a graph input too: callers may overwrite it, so that onnxruntime folds and fuses nothing with it",
    "export with keep_initializers_as_inputs=False, or remove it from graph.input",
)
DEAD_NODES = rule(
    "GX503",
    Severity.WARNING,
    "nodes whose results no output depends on",
    "remove them (onnx_ir.passes.common.RemoveUnusedNodesPass does)",
)


def dead_parts(model: OnnxModel, _settings: LintSettings) -> Iterator[Finding]:
    """Initializers without readers, weights among the inputs, nodes without use."""
    outputs = {value.name for graph in model.graphs for value in graph.output}
    for name, value in model.initializers.items():
        if name not in model.readers and name not in outputs:
            size = size_bytes(value) or 0
            yield UNUSED_WEIGHT.found(tensor(name), f"{name} ({readable_size(size)}) is read by no node")
    inputs = {value.name for value in model.graph.input}
    # A single number is an optional argument with a default, and meant to be overwritten.
    if both := [name for name, value in model.initializers.items() if name in inputs and count(value) > 1]:
        message = f"{len(both)} weights are inputs as well: {shown(both)}; only optional numbers should be"
        yield OVERRIDABLE_WEIGHT.found(tensor(both[0]), message)
    if dead := _dead(model):
        yield DEAD_NODES.found(node(dead[0]), f"{len(dead)} nodes lead to no output: {shown(dead)}")


def _dead(model: OnnxModel) -> list[str]:
    """Names of the main graph's nodes that no output needs. What a nested graph reads counts as needed."""
    makers = {name: index for index, each in enumerate(model.graph.node) for name in each.output if name}
    needed = [value.name for graph in model.graphs for value in graph.output]
    needed += [name for graph in model.graphs[1:] for each in graph.node for name in each.input]
    alive: set[int] = set()
    while needed:
        index = makers.get(needed.pop())
        if index is not None and index not in alive:
            alive.add(index)
            needed += model.graph.node[index].input
    return [node_name(each) for index, each in enumerate(model.graph.node) if index not in alive]
