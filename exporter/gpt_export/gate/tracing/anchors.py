"""Where an activation of an eager module can be found in a graph: beside the weights that both know.

A graph has no module names to rely on, but it has the module's parameters. The node that multiplies by a linear layer's
weight reads the layer's input; the last node in a row that reads one of its parameters writes its output. The logits
need no weight: both sides have them by name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import onnx

from gpt_export.runtime.signature import LOGITS

End = Literal["input", "output"]

WHOLE = ""
"""The name of the model itself among its modules, as `named_modules` has it."""
_PRODUCTS = frozenset({"MatMul", "Gemm", "MatMulNBits", "MatMulInteger", "FusedMatMul"})
_NORMS = frozenset(
    {"LayerNormalization", "SkipLayerNormalization", "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization"}
)
_OWN_NORM_INPUTS = {
    "LayerNormalization": slice(1, 3),
    "SkipLayerNormalization": slice(2, 4),
    "SimplifiedLayerNormalization": slice(1, 2),
    "SkipSimplifiedLayerNormalization": slice(2, 3),
}
"""Inputs that are a norm's own scale and shift; SkipLayerNormalization reads another layer's bias behind them."""
_FUSED_BEHIND_BIAS = frozenset({"FastGelu", "BiasGelu", "SkipLayerNormalization"})
"""Operators that add a layer's bias before they do what they are named for."""
_TABLES = frozenset({"Gather", "GatherBlockQuantized"})
_CARRIERS = frozenset({"Transpose", "Cast", "Identity", "DequantizeLinear", "Reshape"})
_PART_WORDS = (
    ("head", r"out_head|lm_head|head"),
    ("norm", r"\w*norm\d*|ln_?\w*"),
    ("attention", r"att|attn|attention|self_attn"),
    ("mlp", r"ff|mlp|feed_forward"),
    ("embedding", r"\w*emb\w*|wte|wpe|embed\w*"),
)

_FIRST_NORM = re.compile(r"(norm_?1|ln_?1|input_layernorm|(attention|attn)_norm|norm_attn|pre_norm)$")
"""The norm in front of a layer's attention, which reads what the layer before it left."""
_BEHIND_NORM = re.compile(
    r"(W_query|W_key|W_value|c_attn|qkv(_proj)?|[qkv](_proj)?|w[qkv]|layers\.0|c_fc|fc1|gate(_proj)?|up(_proj)?|w1|w3)$"
)
"""Products that read what a norm gives."""

_Use = tuple[onnx.NodeProto, str]


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
        return "the logits" if self.modules == (WHOLE,) else f"{' + '.join(self.modules)} {self.end}"


def find_anchors(graph: onnx.GraphProto, sources: Mapping[str, tuple[str, ...]]) -> tuple[Anchor, ...]:
    """The anchors of `graph`, in its topological order; of one tensor, outputs of modules come before inputs.

    Args:
        sources: by initializer, the names of the parameters that it holds, more than one where they were joined.
    """
    producers = {name: node for node in graph.node for name in node.output}
    order = {id(node): index for index, node in enumerate(graph.node)}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    fixed = _fixed(graph)
    by_modules: dict[tuple[tuple[str, ...], bool], list[_Use]] = {}
    for initializer, parameters in sources.items():
        modules = tuple(name.rpartition(".")[0] for name in parameters)
        for node, value in _uses(initializer, readers, fixed):
            looked_up = node.op_type in _TABLES
            for owners in _owners(modules, parameters, sources, looked_up=looked_up):
                by_modules.setdefault((owners, looked_up), []).append((node, value))

    last_layer = max((number for key in by_modules if (number := layer_of(key[0][0])) is not None), default=None)
    found: dict[Anchor, None] = {}
    for (modules, _), uses in by_modules.items():
        uses.sort(key=lambda use: order[id(use[0])])
        for end, tensor in _ends(uses, readers):
            if tensor in producers:
                layer, part = place(modules, end, last_layer)
                found[Anchor(modules, end, tensor, producers[tensor].op_type, layer, part)] = None
    if LOGITS in producers:
        found[Anchor((WHOLE,), "output", LOGITS, producers[LOGITS].op_type, None, "head")] = None

    def place_of(anchor: Anchor) -> tuple[int, int, bool]:
        """Of one node the last output is first: the sum inside a SkipLayerNormalization comes before the norm."""
        node = producers[anchor.tensor]
        return order[id(node)], -list(node.output).index(anchor.tensor), anchor.end == "input"

    return tuple(sorted(found, key=place_of))


def place(modules: Sequence[str], end: End, last_layer: int | None = None) -> tuple[int | None, str]:
    """The zero-based layer, or None, and the part of the model that computes this end of a module.

    Args:
        last_layer: the number of the last block, which computes what the final norm reads.
    """
    name = modules[0]
    number, part = layer_of(name), part_of(name)
    if end == "output":
        return number, part
    if part == "norm":  # what a norm reads is the residual stream behind the part before it
        if _FIRST_NORM.search(name):
            return (None, "embedding") if not number else (number - 1, "mlp")
        return (number, "attention") if number is not None else (last_layer, "mlp")
    if part == "head":
        return None, "norm"
    if _BEHIND_NORM.search(name):
        return number, "norm"
    return number, part


def layer_of(module: str) -> int | None:
    """The zero-based number of the block that a module belongs to, None outside the blocks."""
    found = re.search(r"(?:^|\.)(\d+)\.", module)
    return int(found[1]) if found else None


def part_of(module: str) -> str:
    """The part that a module's name speaks of: `embedding`, `attention`, `mlp`, `norm`, `head`, or `other`."""
    words = module.split(".")
    for part, pattern in _PART_WORDS:
        if any(re.fullmatch(pattern, word, re.IGNORECASE) for word in words):
            return part
    return "other"


def _ends(uses: list[_Use], readers: Mapping[str, list[onnx.NodeProto]]) -> Iterator[tuple[End, str]]:
    """The tensors that a module reads and writes, at every place where its parameters are computed with."""
    own = {id(node) for node, _ in uses}
    places = [(node, value) for node, value in uses if node.op_type in _PRODUCTS | _NORMS | _TABLES]
    for node, value in places:
        if node.op_type in _PRODUCTS:
            yield "input", next(name for name in node.input if name and name != value)
        elif node.op_type in _NORMS and value in node.input[_OWN_NORM_INPUTS[node.op_type]]:
            if (read := _read_by_norm(node)) is not None:
                yield "input", read
        elif node.op_type in _NORMS:  # the bias of the layer in front, which this operator adds
            continue
        last: onnx.NodeProto | None = node
        out = node.output[0]
        while last is not None:  # the bias, or a shift, that the module's own parameters add to it
            out = last.output[0]
            last = next((reader for reader in readers.get(out, []) if id(reader) in own), None)
            if last is not None and last.op_type in _FUSED_BEHIND_BIAS:
                break  # what the layer gives is inside this operator
        else:
            yield "output", _by_position(out, readers) if node.op_type in _TABLES else out
    if not places:  # a norm written out: its scale and shift are all that is known of it
        yield "output", uses[-1][0].output[0]


def _by_position(tensor: str, readers: Mapping[str, list[onnx.NodeProto]]) -> str:
    """What is looked up of a table for the whole text is read at each token's position behind it, where a cache is."""
    for reader in readers.get(tensor, []):
        if reader.op_type == "Squeeze" and reader.input[0] == tensor:
            return _by_position(reader.output[0], readers)
        if reader.op_type == "Gather" and reader.input[0] == tensor:
            return str(reader.output[0])
    return tensor


def _read_by_norm(node: onnx.NodeProto) -> str | None:
    """What a norm normalises; None where that is a sum which the operator keeps to itself."""
    if not node.op_type.startswith("Skip"):
        return str(node.input[0])
    return str(node.output[3]) if len(node.output) > 3 and node.output[3] else None


def _fixed(graph: onnx.GraphProto) -> set[str]:
    """The tensors that no input reaches: weights, constants, and what is made of them alone, as the 1 + w of a norm."""
    fixed = {tensor.name for tensor in graph.initializer} | {""}
    for node in graph.node:
        if all(name in fixed for name in node.input):
            fixed.update(node.output)
    return fixed


def _uses(name: str, readers: Mapping[str, list[onnx.NodeProto]], fixed: Collection[str]) -> list[_Use]:
    """The nodes that compute with an initializer, and the name under which they read it, past mere carriers."""
    uses = []
    for node in readers.get(name, []):
        if (node.op_type in _CARRIERS and node.input[0] == name) or node.output[0] in fixed:
            uses += _uses(node.output[0], readers, fixed)
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
