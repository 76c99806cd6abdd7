"""An ONNX file as the rules see it: its graph indexed, its weights left where they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from gpt_export.artifact.onnx_bytes import read_proto

Dim = int | str | None
"""A number, a name, or None for a dynamic dim without a name."""
FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})
CODES = frozenset({TensorProto.INT8, TensorProto.UINT8})
"""What a quantised cache is kept in."""
INTEGERS = frozenset({TensorProto.INT32, TensorProto.INT64})
_CACHE_NAME = re.compile(r"past|present|cache", re.IGNORECASE)
_CACHE_PAIR = re.compile(r"past_key_values\.(\d+)\.(key|value)")


def read_model(path: Path) -> OnnxModel:
    """The model in a file; external data is not touched.

    Raises:
        ArtifactError: as in `read_proto`.
    """
    return OnnxModel(path, read_proto(path))


@dataclass(frozen=True, slots=True)
class Value:
    """A graph input or output: name, element type, and dims if it has a shape."""

    name: str
    dtype: int
    dims: tuple[Dim, ...] | None

    @property
    def rank(self) -> int | None:
        """The number of dims, None if there is no shape."""
        return None if self.dims is None else len(self.dims)

    @property
    def dtype_name(self) -> str:
        """As `int64`, `float`."""
        return dtype_name(self.dtype)

    def __str__(self) -> str:
        dims = "no shape" if self.dims is None else ", ".join("?" if dim is None else str(dim) for dim in self.dims)
        return f"{self.dtype_name} [{dims}]"


class OnnxModel:
    """The graph of one file. Tensors of nested graphs count as part of it."""

    def __init__(self, path: Path, proto: ModelProto) -> None:
        self.path = path
        self.proto = proto
        self.graph = proto.graph

    @cached_property
    def graphs(self) -> list[GraphProto]:
        """The main graph and those nested in it, outer ones first."""
        found = [self.graph]
        for graph in found:
            found += [nested for each in graph.node for nested in _nested(each)]
        return found

    @cached_property
    def nodes(self) -> list[NodeProto]:
        """All nodes, those of nested graphs and of the model's own functions included."""
        return [each for graph in self.graphs for each in graph.node] + [
            each for function in self.proto.functions for each in function.node
        ]

    @cached_property
    def initializers(self) -> dict[str, TensorProto]:
        """By name, those of nested graphs included."""
        return {each.name: each for graph in self.graphs for each in graph.initializer}

    @cached_property
    def constants(self) -> dict[str, TensorProto]:
        """The tensors of Constant nodes, by the name of their output."""
        return {
            each.output[0]: attribute.t
            for each in self.nodes
            if each.op_type == "Constant" and each.output
            for attribute in each.attribute
            if attribute.name == "value"
        }

    @cached_property
    def readers(self) -> dict[str, list[tuple[NodeProto, int]]]:
        """By tensor, the nodes that read it and at which input."""
        found: dict[str, list[tuple[NodeProto, int]]] = {}
        for each in self.nodes:
            for index, name in enumerate(each.input):
                found.setdefault(name, []).append((each, index))
        return found

    @cached_property
    def inputs(self) -> list[Value]:
        """What a caller must feed: the graph's inputs without those that an initializer gives a default."""
        return [_value(each) for each in self.graph.input if each.name not in self.initializers]

    @cached_property
    def outputs(self) -> list[Value]:
        """The graph's outputs."""
        return [_value(each) for each in self.graph.output]

    def input(self, name: str) -> Value | None:
        """The input of that name."""
        return next((value for value in self.inputs if value.name == name), None)

    def output(self, name: str) -> Value | None:
        """The output of that name."""
        return next((value for value in self.outputs if value.name == name), None)

    @cached_property
    def ids(self) -> Value | None:
        """The token ids: `input_ids`, otherwise the first input of whole numbers with two axes."""
        named = self.input("input_ids")
        return named or next((v for v in self.inputs if v.dtype in INTEGERS and v.rank == 2), None)

    @cached_property
    def logits(self) -> Value | None:
        """The logits: `logits`, otherwise the first output of fractions with three axes."""
        named = self.output("logits")
        return named or next((v for v in self.outputs if v.dtype in FLOATS and v.rank == 3), None)

    @cached_property
    def caches(self) -> list[Value]:
        """Inputs and outputs that hold keys and values of other positions: at least four axes, or so named."""
        return [
            value
            for value in (*self.inputs, *self.outputs)
            if (value.dtype in FLOATS and (value.rank or 0) >= 4)
            or (value.dtype in FLOATS | CODES and _CACHE_NAME.search(value.name) and value.rank in (None, 4, 5))
        ]

    @cached_property
    def is_cached_decoder(self) -> bool:
        """Whether it takes ids and a cache and gives logits."""
        taken = {value.name for value in self.inputs}
        return self.ids is not None and self.logits is not None and any(value.name in taken for value in self.caches)

    def opset(self, domain: str = "") -> int | None:
        """The version of a domain's operators, None if the model does not import it."""
        names = ("", "ai.onnx") if domain in ("", "ai.onnx") else (domain,)
        return next((entry.version for entry in self.proto.opset_import if entry.domain in names), None)

    @cached_property
    def operators(self) -> dict[tuple[str, str], list[NodeProto]]:
        """Nodes by domain ("" for ai.onnx) and operator."""
        found: dict[tuple[str, str], list[NodeProto]] = {}
        for each in self.nodes:
            found.setdefault(("" if each.domain == "ai.onnx" else each.domain, each.op_type), []).append(each)
        return found


def external_files(model: OnnxModel) -> dict[str, Path]:
    """By tensor, the file that its bytes are said to be in; those in the .onnx file itself are left out."""
    places = {
        tensor.name: entry.value
        for tensor in (*model.initializers.values(), *model.constants.values())
        if tensor.data_location == TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return {name: model.path.parent / place for name, place in places.items()}


def cache_pair(name: str) -> tuple[int, str] | None:
    """Layer and `key` or `value` of a past input with the usual name, None for any other name."""
    match = _CACHE_PAIR.fullmatch(name)
    return (int(match[1]), match[2]) if match else None


def node_name(node: NodeProto) -> str:
    """The node's name, or what it makes if it has none."""
    return node.name or f"{node.op_type} of {next(iter(node.output), '?')}"


def dtype_name(dtype: int) -> str:
    """As `int64`, `float16`; the number itself if this onnx does not know it."""
    names: dict[int, str] = {number: name.lower() for name, number in TensorProto.DataType.items()}
    return names.get(dtype, f"type {dtype}")


def attribute(node: NodeProto, name: str) -> AttributeProto | None:
    """The attribute of that name."""
    return next((each for each in node.attribute if each.name == name), None)


def _nested(node: NodeProto) -> Iterator[GraphProto]:
    for each in node.attribute:
        if each.type == AttributeProto.GRAPH:
            yield each.g
        elif each.type == AttributeProto.GRAPHS:
            yield from each.graphs


def _value(info: ValueInfoProto) -> Value:
    kind = info.type.tensor_type
    if not info.type.HasField("tensor_type"):
        return Value(info.name, TensorProto.UNDEFINED, None)
    dims = tuple(_dim(dim) for dim in kind.shape.dim) if kind.HasField("shape") else None
    return Value(info.name, kind.elem_type, dims)


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    if dim.HasField("dim_value"):
        return int(dim.dim_value) if dim.dim_value >= 0 else None
    return dim.dim_param or None
