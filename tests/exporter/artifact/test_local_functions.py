"""A file whose functions double is refused before onnxruntime begins, and one with a few is run."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from gpt_export.artifact.local_functions import check_functions
from gpt_export.errors import ArtifactError
from onnx import helper


def doubling(count: int, path: Path) -> Path:
    """A model of so many functions, each of which calls the one before twice."""
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("f", 1)]
    functions = []
    for i in range(count):
        name, domain = (f"g{i - 1}", "f") if i else ("Neg", "")
        nodes = [helper.make_node(name, [a], [b], domain=domain) for a, b in (("a", "b"), ("b", "c"))]
        functions.append(helper.make_function("f", f"g{i}", ["a"], ["c"], nodes, opsets))
    values = [helper.make_tensor_value_info(name, 1, [1]) for name in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node(f"g{count - 1}", ["x"], ["y"], domain="f")], "g", *([one] for one in values)
    )
    onnx.save(helper.make_model(graph, functions=functions, opset_imports=opsets, ir_version=9), path)
    return path


def test_functions_that_double_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError):
        check_functions(doubling(30, tmp_path / "m.onnx"))


def test_a_few_functions_are_let_through(tmp_path: Path) -> None:
    check_functions(doubling(3, tmp_path / "m.onnx"))


@pytest.mark.parametrize("data", [b"", b"\xff" * 99, b"no model"])
def test_what_is_no_message_is_onnxruntimes_to_tell(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    check_functions(tmp_path / "m.onnx")


def test_a_file_that_is_not_there_is_onnxruntimes_to_tell(tmp_path: Path) -> None:
    check_functions(tmp_path / "none.onnx")
