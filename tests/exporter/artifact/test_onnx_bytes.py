"""ONNX files of hostile bytes: refused by what they are, before they cost anything."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from gpt_export.artifact import onnx_bytes
from gpt_export.artifact.inlining import inlined_nodes
from gpt_export.artifact.inspection import inspect_path
from gpt_export.artifact.onnx_bytes import read_proto
from gpt_export.errors import ArtifactError
from gpt_export.linting.run import lint_path
from onnx import ModelProto, TensorProto, helper

from tests.conftest import Run
from tests.exporter.linting import graphs

MINE = helper.make_opsetid("mine", 1)
STANDARD = helper.make_opsetid("", 18)


def length_of(size: int) -> bytes:
    """A length as protobuf spells it."""
    spelled = bytearray()
    while size >= 0x80:
        spelled.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*spelled, size])


def field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + length_of(len(content)) + content


def with_functions(calls: dict[str, list[str]], called: str) -> ModelProto:
    """The good model with functions that call those that are named, Identity where none of ours has the name."""
    model = graphs.good()
    for name, callees in calls.items():
        nodes = [
            helper.make_node(callee, ["a"], [f"t{index}"], domain="mine" if callee in calls else "")
            for index, callee in enumerate(callees)
        ]
        nodes.append(helper.make_node("Identity", ["a"], ["b"]))
        model.functions.append(helper.make_function("mine", name, ["a"], ["b"], nodes, [STANDARD, MINE]))
    model.graph.node.append(helper.make_node(called, ["masked"], ["unused"], domain="mine"))
    model.opset_import.append(MINE)
    return model


def written(folder: Path, content: bytes, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def refused(path: Path) -> str:
    """The sentence on the file, within a second and without its size in memory, whoever reads it."""
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(ArtifactError) as caught:
        read_proto(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB
    for look in (inspect_path, lint_path):
        with pytest.raises(ArtifactError) as other:
            look(path)
        assert str(other.value) == str(caught.value)
    assert time.monotonic() - began < 5
    return str(caught.value)


def test_a_good_model_is_what_onnx_reads(tmp_path: Path) -> None:
    path = written(tmp_path, graphs.good().SerializeToString(), "model.json")  # whatever its name ends with
    assert read_proto(path) == onnx.load(path, format="protobuf", load_external_data=False)


@pytest.mark.parametrize("size", [2**20, 3 * 2**30])
def test_zeros_are_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "zeros.onnx"
    with path.open("wb") as file:
        file.truncate(size)
    assert "is not an ONNX model" in (found := refused(path)) or "holes" in found


@pytest.mark.parametrize(
    ("name", "text"),
    [("m.json", '{"irVersion": 8}'), ("m.textproto", "ir_version: 8 graph {}"), ("m.onnxtxt", "<ir_version: 8>")],
)
def test_text_formats_are_refused_as_no_model(tmp_path: Path, name: str, text: str) -> None:
    assert "is not an ONNX model" in refused(written(tmp_path, text.encode(), name))


@pytest.mark.parametrize("part", range(1, 8))
def test_a_model_that_is_cut_short_is_refused(tmp_path: Path, part: int) -> None:
    whole = graphs.good().SerializeToString()
    assert "is not an ONNX model" in refused(written(tmp_path, whole[: len(whole) * part // 8]))


@pytest.mark.parametrize("name", [b"logits", b"MatMul", b"batch_size", b"wte"])
def test_a_name_that_is_not_utf_8_is_refused_with_its_bytes(tmp_path: Path, name: bytes) -> None:
    model = graphs.good().SerializeToString()
    assert name in model
    message = refused(written(tmp_path, model.replace(name, b"\xff" + name[1:])))
    assert "is not UTF-8" in message
    assert repr(b"\xff" + name[1:]) in message


def test_functions_that_double_are_counted_and_not_made(tmp_path: Path) -> None:
    calls = {f"f{index}": [f"f{index - 1}"] * 2 for index in range(26)}
    model = with_functions(calls, "f25")
    assert inlined_nodes(model) == len(model.graph.node) + 2**28 - 3 - 2**26  # each is two of the last, and one more
    path = written(tmp_path, model.SerializeToString())
    assert "has functions that make" in refused(path)


def test_the_command_line_refuses_functions_that_double_before_onnxruntime_sees_them(
    tmp_path: Path, cli: Callable[..., Run]
) -> None:
    calls = {f"f{index}": [f"f{index - 1}"] * 2 for index in range(26)}
    path = written(tmp_path, with_functions(calls, "f25").SerializeToString())
    began = time.monotonic()
    cli("validate", path, "--against", "dummy-124m").refused(1, "has functions that make")
    assert time.monotonic() - began < 20  # of which the source takes most


@pytest.mark.parametrize("calls", [{"f": ["f"]}, {"f": ["g"], "g": ["h"], "h": ["f"]}])
def test_functions_that_call_themselves_are_refused(tmp_path: Path, calls: dict[str, list[str]]) -> None:
    path = written(tmp_path, with_functions(calls, "f").SerializeToString())
    assert "has functions that call themselves" in refused(path)


def test_a_long_chain_of_functions_is_no_fault(tmp_path: Path) -> None:
    calls = {f"f{index}": [f"f{index - 1}"] if index else [] for index in range(3000)}
    model = with_functions(calls, "f2999")
    assert inlined_nodes(model) == len(model.graph.node) + 3000 + 2999
    read_proto(written(tmp_path, model.SerializeToString()))


def test_millions_of_empty_parts_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_bytes, "MOST_MESSAGES", 1000)
    graph = field(7, field(1, b"") * 1001)  # empty nodes: two bytes each, and a hundred in memory
    assert "more than 1000 parts" in refused(written(tmp_path, graph))


def test_graphs_within_graphs_without_end_are_refused(tmp_path: Path) -> None:
    inner = b""
    for _ in range(200):  # graph of attribute of node of graph
        inner = field(1, field(5, field(6, inner)))
    assert "nested more than" in refused(written(tmp_path, field(7, inner)))


@pytest.mark.parametrize(
    ("dims", "kind"), [((2**62, 2**62), 1), ((-4, 4), 1), ((7,), 99), ((2**40,), TensorProto.INT4)]
)
def test_dims_and_types_that_cannot_be_are_told_by_lint_and_inspect(
    tmp_path: Path, dims: tuple[int, ...], kind: int
) -> None:
    model = graphs.good()
    model.graph.initializer.append(TensorProto(name="odd", data_type=kind, dims=dims))
    path = written(tmp_path, model.SerializeToString())
    assert inspect_path(path)["graphs"]["model.onnx"]["weights"]["count"] == len(model.graph.initializer)
    lint_path(path)


def external(location: str) -> TensorProto:
    made = TensorProto(name="odd", data_type=TensorProto.FLOAT, dims=[8, 8], data_location=TensorProto.EXTERNAL)
    made.external_data.add(key="location", value=location)
    return made


@pytest.mark.parametrize("location", ["loop", "x" * 10_000, "a\0b", "pipe", "/etc/passwd"])
def test_external_data_that_nobody_can_read_is_a_finding(tmp_path: Path, location: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    model = graphs.good()
    model.graph.initializer.append(external(location))
    report = lint_path(written(tmp_path, model.SerializeToString()))
    codes = {finding.code for file in report.files for finding in file.findings}
    assert codes & {"GX201", "GX203"}


def test_one_range_of_bytes_under_hundreds_of_names_is_refused(tmp_path: Path) -> None:
    model = graphs.good()
    (tmp_path / "weights").write_bytes(b"x")
    for index in range(300):
        tensor = external("weights")
        tensor.name, tensor.dims[:] = f"w{index}", [2**18, 2**10]
        model.graph.initializer.append(tensor)
    with pytest.raises(ArtifactError, match="the same bytes would be read over and over"):
        lint_path(written(tmp_path, model.SerializeToString()))


@pytest.mark.parametrize("version", [-(2**63), -1, 2**40])
def test_a_version_of_operators_that_cannot_be_is_refused(tmp_path: Path, version: int) -> None:
    model = graphs.good()
    model.opset_import[0].version = version
    assert f"imports version {version} of the operators" in refused(written(tmp_path, model.SerializeToString()))


def test_names_cannot_write_to_the_terminal(tmp_path: Path, cli: Callable[..., Run]) -> None:
    model = graphs.good()
    model.producer_name = "\x1b]0;mine\x07"
    path = written(tmp_path, model.SerializeToString())
    run = cli("inspect", path)
    assert run.code == 0
    assert "\x1b" not in run.out
    assert "]0;mine" in run.out
    cli("inspect", tmp_path / "\x1b[2J.onnx").refused(1, "\N{REPLACEMENT CHARACTER}[2J.onnx does not exist")
