"""Bytes of weights that a graph reads for one new token, counted from the file and not from a formula."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import onnx

from gpt_export.artifact.element_sizes import size_bytes
from gpt_export.artifact.onnx_bytes import read_proto

GATHERING = {"Gather": (0,), "GatherND": (0,), "GatherElements": (0,), "GatherBlockQuantized": (0, 2, 3)}
"""Operators that read a few rows of a table, and which of their inputs are the table."""
VIEWS = frozenset({"Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten"})
"""Operators whose output is their first input in another shape, so that what reads the output reads the input."""


def bytes_per_token(path: Path) -> int:
    """Bytes of all initializers of the graph at `path`, except those that are only gathered from.

    An embedding of which one row is looked up is read no further; where a tied head multiplies by the same table, it
    is counted, once. Initializers that nothing uses are not counted. A row that is looked up is too small to count.
    """
    graph = read_proto(path).graph
    readers: dict[str, set[str]] = defaultdict(set)
    """By value, the outputs of views through which it is read on, or `read` and `gathered`."""
    for node in _nodes(graph):
        for i, name in enumerate(node.input):
            if node.op_type in VIEWS and i == 0:
                readers[name].update(f"={output}" for output in node.output)
            else:
                readers[name].add("gathered" if i in GATHERING.get(node.op_type, ()) else "read")
    for output in graph.output:
        readers[output.name].add("read")

    def is_read(name: str) -> bool:
        return any(how == "read" or (how.startswith("=") and is_read(how[1:])) for how in readers[name])

    return sum(size_bytes(tensor) or 0 for tensor in graph.initializer if is_read(tensor.name))


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)
