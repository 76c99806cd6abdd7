"""Where an activation of an eager module can be found in a graph: beside the weights that both know.

A graph has no module names to rely on, but it has the module's parameters. The node that multiplies by a linear layer's
weight reads the layer's input; the last node that reads one of its parameters writes its output.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import onnx

End = Literal["input", "output"]

_PRODUCTS = frozenset({"MatMul", "Gemm", "MatMulNBits", "MatMulInteger", "FusedMatMul"})
_CARRIERS = frozenset({"Transpose", "Cast", "Identity", "DequantizeLinear", "Reshape"})
_PART_WORDS = (
    ("head", r"out_head|lm_head|head"),
    ("norm", r"norm\d*|ln_?\w*|layernorm"),
    ("attention", r"att|attn|attention|self_attn"),
    ("mlp", r"ff|mlp|feed_forward"),
    ("embedding", r"\w*emb\w*|wte|wpe|embed\w*"),
)


@dataclass(frozen=True, slots=True)
class Anchor:
    """A tensor of the graph and the eager activations that it should equal, side by side on the last axis."""

    modules: tuple[str, ...]
    end: End
    tensor: str
    operator: str
    layer: int | None
    part: str

    @property
    def label(self) -> str:
        """What is compared, in words."""
        return f"{' + '.join(self.modules)} {self.end}"


def find_anchors(graph: onnx.GraphProto, sources: Mapping[str, tuple[str, ...]]) -> tuple[Anchor, ...]:
    """The anchors of `graph`, in its topological order.

    Args:
        sources: by initializer, the names of the parameters that it holds, more than one where they were joined.
    """
    producers = {name: node for node in graph.node for name in node.output}
    order = {id(node): index for index, node in enumerate(graph.node)}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    by_modules: dict[tuple[tuple[str, ...], bool], list[tuple[onnx.NodeProto, str]]] = {}
    for initializer, parameters in sources.items():
        modules = tuple(name.rpartition(".")[0] for name in parameters)
        for node, value in _uses(initializer, readers):
            looked_up = node.op_type in ("Gather", "GatherBlockQuantized")
            for owners in _owners(modules, parameters, sources, looked_up=looked_up):
                by_modules.setdefault((owners, looked_up), []).append((node, value))

    found: dict[str, Anchor] = {}
    anchors = []
    for (modules, _), uses in by_modules.items():
        uses.sort(key=lambda use: order[id(use[0])])
        first, value = uses[0]
        last = uses[-1][0]
        product = next(((node, name) for node, name in uses if node.op_type in _PRODUCTS), None)
        if product is not None:
            data = next(name for name in product[0].input if name and name != product[1])
            anchors.append(_anchor(modules, "input", data, producers))
        elif first.op_type in ("LayerNormalization", "SkipLayerNormalization", "SimplifiedLayerNormalization"):
            anchors.append(_anchor(modules, "input", first.input[0], producers))
        anchors.append(_anchor(modules, "output", last.output[0], producers))
    for anchor in anchors:
        if anchor is not None:
            # An output names its tensor better than the input of the module that reads it.
            known = found.get(anchor.tensor)
            if known is None or (known.end == "input" and anchor.end == "output"):
                found[anchor.tensor] = anchor
    return tuple(sorted(found.values(), key=lambda anchor: order[id(producers[anchor.tensor])]))


def place(modules: Sequence[str], end: End) -> tuple[int | None, str]:
    """The zero-based layer, or None, and the part of the model that computes this end of a module."""
    name = modules[0]
    layer = re.search(r"(?:^|\.)(\d+)\.", name)
    number = int(layer[1]) if layer else None
    part = part_of(name)
    if end == "output":
        return number, part
    if part == "norm":  # what a norm reads is the residual stream behind the part before it
        if re.search(r"(norm1|ln_1)$", name):
            return (None, "embedding") if not number else (number - 1, "mlp")
        return (number, "attention") if number is not None else (None, "mlp")
    if part == "head":
        return None, "norm"
    if re.search(r"(W_query|W_key|W_value|c_attn|qkv|layers\.0|c_fc)$", name):
        return number, "norm"
    return number, part


def part_of(module: str) -> str:
    """The part that a module's name speaks of: `embedding`, `attention`, `mlp`, `norm`, `head`, or `other`."""
    words = module.split(".")
    for part, pattern in _PART_WORDS:
        if any(re.fullmatch(pattern, word, re.IGNORECASE) for word in words):
            return part
    return "other"


def _anchor(modules: tuple[str, ...], end: End, tensor: str, producers: Mapping[str, onnx.NodeProto]) -> Anchor | None:
    if tensor not in producers:
        return None
    layer, part = place(modules, end)
    return Anchor(modules, end, tensor, producers[tensor].op_type, layer, part)


def _uses(name: str, readers: Mapping[str, list[onnx.NodeProto]]) -> list[tuple[onnx.NodeProto, str]]:
    """The nodes that compute with an initializer, and the name under which they read it, past mere carriers."""
    uses = []
    for node in readers.get(name, []):
        if node.op_type in _CARRIERS and node.input[0] == name:
            uses += _uses(node.output[0], readers)
        else:
            uses.append((node, name))
    return uses


def _owners(
    modules: tuple[str, ...], parameters: tuple[str, ...], sources: Mapping[str, tuple[str, ...]], *, looked_up: bool
) -> list[tuple[str, ...]]:
    """Who owns this use of an initializer: of a tied embedding the table where it is looked up, else the head."""
    if len(parameters) > 1 and len(sources) and {part_of(module) for module in modules} == {"embedding", "head"}:
        wanted = "embedding" if looked_up else "head"
        return [(module,) for module in modules if part_of(module) == wanted]
    return [modules]
