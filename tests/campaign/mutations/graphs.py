"""ONNX by its structure: nodes, attributes, types, initializers, external data, functions, subgraphs, versions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from onnx import AttributeProto, ModelProto, TensorProto, helper

from tests.campaign.case import pick
from tests.campaign.mutations import Op

FILE = "onnx/model.onnx"
NAMES = ("", "x", "\x00", "../x", "input_ids", "logits", "a" * 5000, "/tok_emb/Gather", "é", "%s{}")
TYPES = ("Identity", "MatMul", "If", "Loop", "Scan", "Reshape", "Gather", "ConstantOfShape", "Range", "Tile", "Expand",
         "Resize", "Pad", "NoSuch", "", "GroupQueryAttention", "MatMulNBits", "SequenceAt", "Einsum",
         "TopK")  # fmt: skip
DOMAINS = ("", "com.microsoft", "ai.onnx.ml", "x", "ai.onnx", "\x00")
NUMBERS = (0, 1, -1, 2, 2**31, 2**62, -(2**63), 2**63 - 1)
PLACES = (b"../../../etc/passwd", b"/etc/passwd", b"/dev/zero", b"", b".", b"model.onnx", b"x\x00y", b"no such",
         b"a/../../b",
          b"C:\\x", b"/proc/self/mem")  # fmt: skip

Change = Callable[[ModelProto, float, float], None]


def _op(change: Change) -> Op:
    def changed(folder: Path, at: float, what: float) -> None:
        path = folder / FILE
        model = onnx.load(path, load_external_data=False)
        change(model, at, what)
        path.write_bytes(model.SerializeToString())

    return changed


def _again(what: float) -> float:
    return what * 7919 % 1


def _drop_node(model: ModelProto, at: float, what: float) -> None:
    del what, model.graph.node[int(at * len(model.graph.node))]


def _repeat_node(model: ModelProto, at: float, what: float) -> None:
    node = pick(model.graph.node, at)
    model.graph.node.extend([node] * (1 + int(what * 50)))


def _reverse(model: ModelProto, at: float, what: float) -> None:
    place = int(at * len(model.graph.node))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(
        [*nodes[:place], *reversed(nodes[place : place + 2 + int(what * 9)]), *nodes[place + 2 + int(what * 9) :]]
    )


def _input(model: ModelProto, at: float, what: float) -> None:
    node = pick([node for node in model.graph.node if node.input], at)
    others = [*NAMES, *(name for other in model.graph.node[::7] for name in other.output)]
    node.input[int(_again(at) * len(node.input))] = pick(others, what)


def _output(model: ModelProto, at: float, what: float) -> None:
    node = pick(model.graph.node, at)
    node.output[0] = pick([*NAMES, *node.input], what)


def _type(model: ModelProto, at: float, what: float) -> None:
    node = pick(model.graph.node, at)
    node.op_type, node.domain = pick(TYPES, what), pick(DOMAINS, _again(what)) if what > 0.7 else node.domain


def _attribute(model: ModelProto, at: float, what: float) -> None:
    node = pick([node for node in model.graph.node if node.attribute], at)
    one = pick(node.attribute, _again(at))
    values: list[Any] = [*NUMBERS, 1.5, float("nan"), "x", b"\xff", [1, 2], [2**62] * 9, [0.5], ["a"]]
    made = helper.make_attribute(one.name if what < 0.8 else pick(NAMES, what), pick(values, what))
    if _again(what) < 0.2:
        made.type = pick(AttributeProto.AttributeType.values(), at)
    one.CopyFrom(made)


def _initializer(model: ModelProto, at: float, what: float) -> None:
    tensor = pick(model.graph.initializer, at)
    if what < 0.5:
        tensor.dims.append(pick(NUMBERS, what * 2))
    elif what < 0.75:
        tensor.dims[int(_again(at) * len(tensor.dims))] = pick(NUMBERS, what * 4 % 1)
    else:
        tensor.data_type = int(what * 97) % 30


def _data(model: ModelProto, at: float, what: float) -> None:
    tensor = pick(model.graph.initializer, at)
    data = tensor.raw_data
    tensor.raw_data = data[: int(what * len(data))] if what < 0.6 else data + bytes(int(what * 64))


def _external(model: ModelProto, at: float, what: float) -> None:
    tensor = pick(model.graph.initializer, at)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    numbers = (b"0", b"-1", b"9" * 30, b"x", b"", b"4096", b"1e9", "٣".encode(), b" 1", b"18446744073709551616")
    for key, value in (
        (b"location", pick(PLACES, what)),
        (b"offset", pick(numbers, _again(what))),
        (b"length", pick(numbers, _again(at))),
    ):
        entry = tensor.external_data.add()
        entry.key, entry.value = key.decode(), value.decode("utf-8", "replace")


def _dims(model: ModelProto, at: float, what: float) -> None:
    value = pick([*model.graph.input, *model.graph.output, *model.graph.value_info], at)
    shape = value.type.tensor_type.shape
    if what < 0.2:
        value.type.Clear()
    elif what < 0.3:
        for _ in range(5000):
            shape.dim.add()
    elif shape.dim:
        one = pick(shape.dim, _again(at))
        if what < 0.7:
            one.dim_value = pick(NUMBERS, _again(what))
        else:
            one.dim_param = pick(NAMES, _again(what))


def _element(model: ModelProto, at: float, what: float) -> None:
    pick([*model.graph.input, *model.graph.output], at).type.tensor_type.elem_type = int(what * 30)


def _signature(model: ModelProto, at: float, what: float) -> None:
    values = model.graph.input if what < 0.5 else model.graph.output
    if _again(what) < 0.5:
        del values[int(at * len(values))]
    else:
        pick(values, at).name = pick(NAMES, _again(at))


def _versions(model: ModelProto, at: float, what: float) -> None:
    if what < 0.5:
        model.opset_import[0].version = pick((*NUMBERS, 7, 13, 17, 99), at)
    elif what < 0.8:
        model.opset_import.add(domain=pick(DOMAINS, at), version=pick(NUMBERS, _again(at)))
    else:
        model.ir_version = pick((0, 1, 3, 99, 2**62), at)


def _functions(model: ModelProto, at: float, what: float) -> None:
    """Functions that each call the one before twice: 2 to the power of their number, inlined; or themselves."""
    count, opset = 1 + int(at * 30), helper.make_opsetid("", 18)
    local = helper.make_opsetid("f", 1)
    for i in range(count):
        called = f"g{i - 1}" if i else ("Neg" if what < 0.7 else f"g{count - 1}")
        domain = "f" if i or what >= 0.7 else ""
        nodes = [
            helper.make_node(called, ["a"], ["b"], domain=domain),
            helper.make_node(called, ["b"], ["c"], domain=domain),
        ]
        model.functions.append(helper.make_function("f", f"g{i}", ["a"], ["c"], nodes, [opset, local]))
    model.opset_import.append(local)
    node = pick([node for node in model.graph.node if node.output], what)
    node.op_type, node.domain = f"g{count - 1}", "f"
    del node.attribute[:], node.input[1:], node.output[1:]


def _subgraph(model: ModelProto, at: float, what: float) -> None:
    """Graphs in graphs."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["input_ids"], ["y"])], "g", [], [helper.make_tensor_value_info("y", 7, None)]
    )
    for i in range(1 + int(what * 60)):
        node = helper.make_node("If", ["c"], [f"y{i}"], then_branch=graph, else_branch=graph if i < 3 else None)
        graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info(f"y{i}", 7, None)])
    model.graph.node.insert(int(at * len(model.graph.node)), helper.make_node("If", ["c"], ["z"], then_branch=graph))


def _large(model: ModelProto, at: float, what: float) -> None:
    """A small file that asks for much: a constant of any size, or a shape that is none."""
    size = helper.make_tensor("s", 7, [2], [pick((2**20, 2**31, 2**40), what), pick((1, 2**12, 2**31), _again(what))])
    nodes = [
        helper.make_node("Constant", [], ["size"], value=size),
        helper.make_node("ConstantOfShape", ["size"], ["big"]),
    ]
    for node in nodes:
        model.graph.node.insert(0, node)
    model.graph.node.insert(0, model.graph.node.pop(1))
    pick([node for node in model.graph.node[2:] if node.input], at).input[0] = "big"


def _metadata(model: ModelProto, at: float, what: float) -> None:
    for i in range(1 + int(what * 2000)):
        entry = model.metadata_props.add()
        entry.key, entry.value = f"{pick(NAMES, at)}{i if at < 0.5 else ''}", pick(NAMES, what)


def graph_ops() -> dict[str, Op]:
    """Edits of the artifact's fp32 file."""
    changes: dict[str, Change] = {
        "node: drop": _drop_node, "node: repeat": _repeat_node, "node: reverse": _reverse, "node: input": _input,
        "node: output": _output, "node: type": _type, "attribute": _attribute, "initializer: dims": _initializer,
        "initializer: data": _data, "initializer: external": _external, "value: dims": _dims,
        "value: element": _element,
        "signature": _signature, "versions": _versions, "functions": _functions, "subgraph": _subgraph, "large": _large,
        "metadata": _metadata,
    }  # fmt: skip
    return {name: _op(change) for name, change in changes.items()}
