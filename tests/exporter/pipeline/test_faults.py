"""Faults planted before publication: each must end in a parity failure, and in nothing published."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpt_export
import numpy as np
import onnx
import pytest
import torch
from gpt_export.artifact.reading import Artifact
from gpt_export.errors import GptExportError, ParityError
from gpt_export.gate.report import WeightsResult
from gpt_export.graph.script import script
from gpt_export_models import DummyGPTModel
from onnx import helper, numpy_helper
from torch import Tensor, nn

from tests import samples
from tests.conftest import Run

Export = Callable[..., Artifact]
Edit = Callable[[onnx.ModelProto], None]

WIDE_VOCAB = 4001


class Square(samples.WithEmbedding):
    """Its head is square, so that swapped axes show in the numbers alone."""

    def __init__(self) -> None:
        super().__init__(width=samples.VOCAB)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.emb(ids))


def in_staging(output: Path, stage: str, plant: Callable[[Path], None]) -> Callable[[str], None]:
    """An `on_stage` that plants a fault in the staging folder when `stage` begins."""

    def on_stage(name: str) -> None:
        if name == stage:
            (folder,) = output.parent.glob(f".{output.name}.staging-*")
            plant(folder)

    return on_stage


def edited(edit: Edit) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        path = folder / "onnx" / "model.onnx"
        model = onnx.load(path)
        edit(model)
        onnx.save(model, path)

    return plant


def initializer(model: onnx.ModelProto, shape: tuple[int, ...]) -> onnx.TensorProto:
    (found,) = (tensor for tensor in model.graph.initializer if tuple(tensor.dims) == shape)
    return found


def change(tensor: onnx.TensorProto, values: np.ndarray) -> None:
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))


def flip_one_bit(model: onnx.ModelProto) -> None:
    tensor = initializer(model, (8, samples.VOCAB))
    values = numpy_helper.to_array(tensor).copy()
    values.view(np.uint32)[3, 5] ^= 1
    change(tensor, values)


def swap_the_head(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tuple(tensor.dims) == (samples.VOCAB, samples.VOCAB) and tensor.name != "emb.weight":
            change(tensor, numpy_helper.to_array(tensor).T)


def swap_batch_and_sequence(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.input[:] = ["swapped_ids" if name == "input_ids" else name for name in node.input]
        node.output[:] = ["swapped_logits" if name == "logits" else name for name in node.output]
    model.graph.node.insert(0, helper.make_node("Transpose", ["input_ids"], ["swapped_ids"], perm=[1, 0]))
    model.graph.node.append(helper.make_node("Transpose", ["swapped_logits"], ["logits"], perm=[1, 0, 2]))


def leave_dropout_on(model: onnx.ModelProto) -> None:
    after_logits(model, "Dropout", [np.float32(0.1), np.array(True)])


def take_the_root(model: onnx.ModelProto) -> None:
    after_logits(model, "Sqrt", [])


def scale_by_a_thousandth(model: onnx.ModelProto) -> None:
    after_logits(model, "Mul", [np.float32(1.001)])


def after_logits(model: onnx.ModelProto, operator: str, constants: list[Any]) -> None:
    for node in model.graph.node:
        node.output[:] = ["right_logits" if name == "logits" else name for name in node.output]
    for i, value in enumerate(constants):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), f"planted_{i}"))
    names = [f"planted_{i}" for i in range(len(constants))]
    model.graph.node.append(helper.make_node(operator, ["right_logits", *names], ["logits"]))


def nothing(model: onnx.ModelProto) -> None:
    """The control: the file is loaded and saved again."""


@pytest.mark.parametrize(
    ("make", "edit", "words"),
    [
        (samples.tiny_dummy, flip_one_bit, ["weight out_head.weight: element [5, 3] is"]),
        (Square, swap_the_head, ["weight head.weight: element [0, 1] is"]),
        (samples.tiny_dummy, swap_batch_and_sequence, ["onnx, case grid-2x17", "times"]),
        (samples.tiny_dummy, leave_dropout_on, ["onnx, case ", "logits differ by", "is allowed"]),
        (samples.tiny_dummy, take_the_root, ["onnx, case ", "logits are NaN or Inf"]),
        (samples.tiny_dummy, scale_by_a_thousandth, ["onnx, case ", "logits differ by", "is allowed"]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_planted_fault_ends_in_a_parity_error_and_no_output(
    make: Callable[[], nn.Module], edit: Edit, words: list[str], export_tiny: Export, tmp_path: Path
) -> None:
    output = tmp_path / "new" / "tiny"
    with pytest.raises(ParityError) as caught:
        export_tiny(samples.seeded(make()), output, on_stage=in_staging(output, "compare weights", edited(edit)))
    message = str(caught.value)
    for word in words:
        assert word in " ".join([message, *caught.value.report.failures])
    assert message.startswith("the export is not the model: ")
    assert message.endswith("nothing was published")
    assert "\n" not in message
    assert caught.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [samples.tiny_dummy, Square], ids=lambda make: make.__name__)
def test_the_same_road_without_a_fault_publishes(
    make: Callable[[], nn.Module], export_tiny: Export, tmp_path: Path
) -> None:
    output = tmp_path / "new" / "tiny"
    export_tiny(samples.seeded(make()), output, on_stage=in_staging(output, "compare weights", edited(nothing)))
    assert output.is_dir()


def test_a_corrupted_row_that_no_case_reads_is_caught_by_the_weights_alone(
    export_tiny: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = samples.seeded(DummyGPTModel(samples.TINY_CONFIG | {"vocab_size": WIDE_VOCAB}))

    def corrupt(model: onnx.ModelProto) -> None:
        tensor = initializer(model, (WIDE_VOCAB, 8))
        values = numpy_helper.to_array(tensor).copy()
        values[WIDE_VOCAB - 2] += 1
        change(tensor, values)

    output = tmp_path / "wide"
    settings: dict[str, Any] = {
        "vocab_size": WIDE_VOCAB,
        "on_stage": in_staging(output, "compare weights", edited(corrupt)),
    }
    with pytest.raises(ParityError, match=rf"weight tok_emb.weight: element \[{WIDE_VOCAB - 2}, 0\]"):
        export_tiny(module, output, **settings)
    assert not output.exists()

    # The control: without that check the fault is published, because no case reads the row.
    unchecked = WeightsResult(checked=0, size_bytes=0, mismatches=())
    monkeypatch.setattr("gpt_export.pipeline.comparison.check_weights", lambda *_: unchecked)
    export_tiny(module, output, **settings)
    assert output.exists()


def test_one_flipped_bit_of_the_124m_file_is_found_in_a_row_that_no_case_reads(
    artifact_124m: Path, dummy_124m: nn.Module, tmp_path: Path
) -> None:
    from gpt_export.artifact.onnx_model import read_model
    from gpt_export.gate.weights_check import check_weights
    from gpt_export.weights.layout import Layout

    manifest = json.loads((artifact_124m / "manifest.json").read_text())
    layouts = {name: Layout.from_dict(layout) for name, layout in manifest["variants"]["fp32"]["weights"].items()}
    weights = dict(dummy_124m.named_parameters())
    for name in ("model.onnx", "model.onnx_data"):
        (tmp_path / name).write_bytes((artifact_124m / "onnx" / name).read_bytes())
    assert check_weights(read_model(tmp_path / "model.onnx"), weights, layouts).passed

    where = {
        entry.key: entry.value
        for tensor in onnx.load(tmp_path / "model.onnx", load_external_data=False).graph.initializer
        if tensor.name == "tok_emb.weight"
        for entry in tensor.external_data
    }
    at = int(where["offset"]) + 4 * (31337 * 768 + 100)
    with (tmp_path / "model.onnx_data").open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    (mismatch,) = check_weights(read_model(tmp_path / "model.onnx"), weights, layouts).mismatches
    assert "tok_emb.weight: element [31337, 100]" in mismatch


@pytest.mark.parametrize("fault", ["other weights", "dropout left on", "other length"])
def test_a_wrong_torchscript_file_is_caught(fault: str, export_tiny: Export, tmp_path: Path) -> None:
    module = samples.tiny_dummy()

    def plant(folder: Path) -> None:
        wrong = samples.tiny_dummy()
        if fault == "other weights":
            wrong.out_head.weight.data[0, 0] += 0.01
        if fault == "dropout left on":
            wrong.train()
        if fault == "other length":
            wrong.pos_emb = nn.Embedding.from_pretrained(wrong.pos_emb.weight[:20])
        torch.jit.save(script(wrong), str(folder / "torchscript" / "model.pt"))

    output = tmp_path / "tiny"
    with pytest.raises(ParityError) as caught:
        export_tiny(module, output, on_stage=in_staging(output, "compare weights", plant))
    failures = caught.value.report.failures
    assert any(failure.startswith("torchscript, case ") for failure in failures)
    assert all(failure.startswith("torchscript, case ") or " of model.pt: " in failure for failure in failures)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [1.5, float("nan")])
def test_a_row_of_the_torchscript_file_that_no_case_reads_is_held_to_the_source(
    value: float, export_tiny: Export, tmp_path: Path
) -> None:
    def make() -> nn.Module:
        return samples.seeded(DummyGPTModel(samples.TINY_CONFIG | {"vocab_size": WIDE_VOCAB})).eval()

    def plant(folder: Path) -> None:
        wrong = make()
        wrong.tok_emb.weight.data[WIDE_VOCAB - 2, 0] = value
        torch.jit.save(script(wrong), str(folder / "torchscript" / "model.pt"))

    output = tmp_path / "wide"
    with pytest.raises(ParityError) as caught:
        export_tiny(make(), output, vocab_size=WIDE_VOCAB, on_stage=in_staging(output, "compare weights", plant))
    assert f"weight tok_emb.weight of model.pt: element [{WIDE_VOCAB - 2}, 0] is" in str(caught.value)
    assert caught.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["0.25", "float('nan')"])
def test_torchscript_alone_refuses_weights_that_are_not_finite_in_rows_that_no_case_reads(
    value: str, cli: Callable[..., Run], user_module: Callable[[str], str], tmp_path: Path
) -> None:
    name = user_module(
        "from gpt_export_models import DummyGPTModel\n"
        "from tests import samples\n"
        "def make():\n"
        f"    config = samples.TINY_CONFIG | {{'vocab_size': {WIDE_VOCAB}}}\n"
        "    module = samples.seeded(DummyGPTModel(config))\n"
        f"    module.tok_emb.weight.data[{WIDE_VOCAB - 2}, 3] = {value}\n"
        "    return module\n"
    )
    run = cli("torchscript", f"{name}:make", "--output", tmp_path / "out")
    if "nan" not in value:
        assert run.code == 0, run.err
        return
    run.refused(3, "weight tok_emb.weight of model.pt: holds NaN or Inf", "nothing was published")
    assert not (tmp_path / "out").exists()


def test_files_that_do_not_load_publish_nothing(export_tiny: Export, tmp_path: Path) -> None:
    output = tmp_path / "tiny"

    def cut(folder: Path) -> None:
        path = folder / "onnx" / "model.onnx"
        path.write_bytes(path.read_bytes()[:-40])

    with pytest.raises((GptExportError, Exception)):
        export_tiny(samples.tiny_dummy(), output, on_stage=in_staging(output, "run eager", cut))
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_finite_are_refused_by_name(export_tiny: Export, tmp_path: Path) -> None:
    module = samples.tiny_dummy()
    module.tok_emb.weight.data[3, 3] = float("nan")
    with pytest.raises(GptExportError, match=r"weight tok_emb\.weight holds NaN or Inf"):
        export_tiny(module)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [samples.Dropping, samples.NotANumber], ids=lambda make: make.__name__)
def test_a_module_that_is_no_function_of_its_ids_is_not_published(
    make: Callable[[], nn.Module], export_tiny: Export, tmp_path: Path
) -> None:
    with pytest.raises(ParityError):
        export_tiny(samples.seeded(make()))
    assert list(tmp_path.iterdir()) == []


def test_gate_report_publishes_and_records_the_failure(export_tiny: Export, tmp_path: Path) -> None:
    output = tmp_path / "tiny"
    artifact = export_tiny(
        samples.tiny_dummy(),
        output,
        gate="report",
        on_stage=in_staging(output, "compare weights", edited(scale_by_a_thousandth)),
    )
    manifest = json.loads((artifact.folder / "manifest.json").read_text())
    parity = json.loads((artifact.folder / "parity.json").read_text())
    assert manifest["parity"]["passed"] is parity["passed"] is False
    assert "logits differ by" in manifest["parity"]["failures"][0]
    assert manifest["export"]["gate"] == "report"
    assert {case["passed"] for case in parity["cases"]["onnx"]} == {False}
    assert {case["passed"] for case in parity["cases"]["torchscript"]} == {True}


def test_a_failed_replacement_leaves_the_old_artifact(export_tiny: Export, tiny: Path) -> None:
    before = {path: path.read_bytes() for path in tiny.rglob("*") if path.is_file()}
    with pytest.raises(ParityError):
        export_tiny(
            samples.tiny_dummy(),
            tiny,
            force=True,
            on_stage=in_staging(tiny, "compare weights", edited(scale_by_a_thousandth)),
        )
    assert {path: path.read_bytes() for path in tiny.rglob("*") if path.is_file()} == before
    assert list(tiny.parent.iterdir()) == [tiny]


class AmplifiesOneLength(nn.Module):
    """Magnifies rounding ten thousandfold at 17 tokens, and calmly maps ids to logits at every other length.

    Scripted it is off by `fault`, relative, before that: one unit in the last place is rounding, more is a fault.
    """

    def __init__(self, fault: float) -> None:
        super().__init__()
        self.emb = nn.Embedding(samples.VOCAB, samples.VOCAB)
        self.fault = fault

    def forward(self, ids: Tensor) -> Tensor:
        x = self.emb(ids)
        if torch.jit.is_scripting():
            x = x * (1.0 + self.fault)
        if ids.shape[1] == 17:
            x = torch.sin(10000.0 * x)
        return x


def test_a_case_that_amplifies_rounding_is_judged_by_eagers_noise_on_it(export_tiny: Export) -> None:
    artifact = export_tiny(samples.seeded(AmplifiesOneLength(2.0**-23)))
    cases = json.loads((artifact.folder / "parity.json").read_text())["cases"]["onnx"]
    assert {case["limit_source"] for case in cases if case["name"] == "grid-5x17"} == {"case"}
    assert {case["limit_source"] for case in cases if case["sequence"] != 17} == {"probe"}


def test_a_real_fault_is_still_caught_where_rounding_is_amplified(export_tiny: Export, tmp_path: Path) -> None:
    with pytest.raises(ParityError) as caught:
        export_tiny(samples.seeded(AmplifiesOneLength(2e-5)))
    assert any("x17" in failure for failure in caught.value.report.failures)
    assert list(tmp_path.iterdir()) == []


def test_export_returns_what_it_published(export_tiny: Export, tmp_path: Path) -> None:
    artifact = export_tiny(samples.tiny_dummy(), tmp_path / "tiny")
    assert isinstance(artifact, Artifact)
    assert artifact.folder == tmp_path / "tiny"
    artifact.verify()
    assert gpt_export.export is not None
