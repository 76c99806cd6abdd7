"""What a named onnxruntime loads: the table against the installed one, and the rules that read it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from gpt_export.artifact.minimum_release import minimum_release
from gpt_export.artifact.onnx_model import read_model
from gpt_export.artifact.releases import CONTRIB_OPERATORS, RELEASES, release_named
from gpt_export.errors import ConfigError
from gpt_export.linting.settings import LintSettings
from onnx import ModelProto, helper

from tests.exporter.linting.faults import CONTRIB, changed, fused, node
from tests.exporter.linting.graphs import after_masked, findings, good, random, save, weight


def stamped(opset: int, ir_version: int) -> ModelProto:
    model = good()
    model.opset_import[0].version = opset
    model.ir_version = ir_version
    return model


def quantised(bits: int) -> Callable[[Path], Path]:
    def change(model: ModelProto) -> None:
        model.opset_import.append(helper.make_opsetid(CONTRIB, 1))
        model.graph.initializer.extend(
            [weight("packed", random(8, 1, 16 * bits // 8).astype(np.uint8)), weight("scales", random(8))]
        )
        inputs = ["masked", "packed", "scales"]
        after_masked(
            model,
            helper.make_node("MatMulNBits", inputs, ["changed"], domain=CONTRIB, K=8, N=8, bits=bits, block_size=16),
        )

    return changed(change)


def load(opset: int, ir_version: int) -> None:
    x = helper.make_tensor_value_info("x", 1, [1])
    y = helper.make_tensor_value_info("y", 1, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def test_the_table_agrees_with_the_installed_onnxruntime() -> None:
    installed = release_named(ort.__version__)
    if installed is None:
        pytest.skip(f"onnxruntime {ort.__version__} is not in the table yet")
    load(installed.opset, 8)
    load(18, installed.ir_version)
    with pytest.raises(Exception, match=r"[Oo]pset"):
        load(installed.opset + 1, 8)
    with pytest.raises(Exception, match="IR version"):
        load(18, installed.ir_version + 1)


def test_the_operators_are_those_of_the_installed_onnxruntime() -> None:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    installed = release_named(ort.__version__)
    if installed is None or not hasattr(state, "get_all_opkernel_def"):
        pytest.skip(f"onnxruntime {ort.__version__} does not list its kernels, or is not in the table yet")
    kernels = {
        kernel.op_name
        for kernel in state.get_all_opkernel_def()
        if kernel.domain == CONTRIB and kernel.provider == "CPUExecutionProvider"
    }
    known = {name for name, each in CONTRIB_OPERATORS.items() if each.cpu and each.cpu <= installed.number}
    assert known <= kernels
    assert {name for name, each in CONTRIB_OPERATORS.items() if each.cpu is None}.isdisjoint(kernels)


def test_releases_only_grow() -> None:
    for before, after in pairwise(RELEASES):
        assert before.number < after.number
        assert before.opset <= after.opset
        assert before.ir_version <= after.ir_version


@pytest.mark.parametrize(("target", "expected"), [("1.13", {"GX301"}), ("1.14", set()), ("1.14.1", set())])
def test_an_opset_newer_than_the_target_is_found(tmp_path: Path, target: str, expected: set[str]) -> None:
    found = findings(save(stamped(18, 8), tmp_path), target_ort=target)
    assert {each.code for each in found} == expected
    if found:
        assert found[0].message == "the opset is 18; onnxruntime 1.13 loads up to 17"


@pytest.mark.parametrize(("target", "expected"), [("1.17", {"GX302"}), ("1.18", set())])
def test_an_ir_version_newer_than_the_target_is_found(tmp_path: Path, target: str, expected: set[str]) -> None:
    assert {each.code for each in findings(save(stamped(18, 10), tmp_path), target_ort=target)} == expected


@pytest.mark.parametrize(
    ("plant", "too_old", "new_enough", "what"),
    [
        (fused(bias=False), "1.17", "1.18", "GroupQueryAttention"),
        (fused(bias=True), "1.21", "1.22", "input 10"),
        (quantised(4), "1.15", "1.16", "MatMulNBits"),
        (quantised(8), "1.22", "1.23", "bits=8"),
        (quantised(2), "1.23", "1.24", "bits=2"),
        (node("GatherBlockQuantized", "masked", "masked", domain=CONTRIB), "1.19", "1.20", "GatherBlockQuantized"),
        (node("GatherBlockQuantized", "masked", "masked", domain=CONTRIB, bits=8), "1.22", "1.23", "bits"),
    ],
)
def test_contrib_operators_have_a_first_release(
    tmp_path: Path, plant: Callable[[Path], Path], too_old: str, new_enough: str, what: str
) -> None:
    path = plant(tmp_path)
    (found,) = [each for each in findings(path, target_ort=too_old) if each.code == "GX303"]
    assert what in found.message
    assert f"from {new_enough} on" in found.message
    assert not [each for each in findings(path, target_ort=new_enough) if each.code == "GX303"]
    minimum = minimum_release(read_model(path))
    assert minimum is not None
    assert minimum.version == new_enough


def test_without_a_target_nothing_is_too_new(tmp_path: Path) -> None:
    assert "GX303" not in {each.code for each in findings(fused(bias=True)(tmp_path))}


def test_a_model_newer_than_the_table_has_no_minimum(tmp_path: Path) -> None:
    assert minimum_release(read_model(save(stamped(RELEASES[-1].opset + 1, 8), tmp_path))) is None


@pytest.mark.parametrize("version", ["9.9", "latest", "1", "1.9"])
def test_a_target_outside_the_table_is_refused(version: str) -> None:
    with pytest.raises(ConfigError, match=r"1\.10 to 1\.32"):
        LintSettings(target_ort=version)


def test_an_unknown_consumer_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"optimum, transformers\.js, onnxruntime-genai, triton"):
        LintSettings(consumers=("tensorrt",))
