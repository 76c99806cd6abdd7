"""Files that other exporters wrote, against the checkpoints they were made from."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from tests import samples
from tests.conftest import Run

Cli = Callable[..., Run]
Edit = Callable[[onnx.ModelProto], None]

VOCAB = 101
CONTEXT = 24
OPTIMUM = os.environ.get("GPT_EXPORT_OPTIMUM_CLI") or shutil.which("optimum-cli")


def copied(path: Path, folder: Path, edit: Edit) -> Path:
    """`path` with the edit, in a folder of its own."""
    model = onnx.load(path)
    edit(model)
    folder.mkdir(exist_ok=True)
    onnx.save(model, folder / "edited.onnx")
    return folder / "edited.onnx"


def nothing(model: onnx.ModelProto) -> None:
    """The control: the file is loaded and saved again."""


def transpose_the_attention_output(model: onnx.ModelProto) -> None:
    """The square weight of layer 1 with its axes swapped."""
    (tensor,) = (
        tensor
        for tensor in model.graph.initializer
        if len(tensor.dims) == 2
        and tensor.dims[0] == tensor.dims[1]
        and ("h.1.attn.c_proj" in tensor.name or "blocks.1.att.out_proj" in tensor.name)
    )
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(numpy_helper.to_array(tensor).T), tensor.name))


def use_the_exact_gelu(model: onnx.ModelProto) -> None:
    """GELU by erf in layer 1, where eager has the tanh form."""
    graph = model.graph
    tanh = [node for node in graph.node if node.op_type == "Tanh"][1]
    made_by = {name: node for node in graph.node for name in node.output}
    pending, seen = [tanh.input[0]], set()
    while pending:  # what is cubed is the input of GELU
        node = made_by.get(pending.pop())
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if node.op_type == "Pow" or len(set(node.input)) < len(node.input):  # x ** 3, or x * x * x
            x = node.input[0]
            break
        pending += node.input
    else:
        raise AssertionError("nothing is cubed before Tanh")
    graph.initializer.append(numpy_helper.from_array(np.float32(2**-0.5), "planted_scale"))
    at = list(graph.node).index(tanh)
    graph.node.insert(at, helper.make_node("Mul", [x, "planted_scale"], ["planted_scaled"], name="planted"))
    tanh.op_type, tanh.input[0] = "Erf", "planted_scaled"


FAULTS = [
    pytest.param(transpose_the_attention_output, "attention", id="transposed weight"),
    pytest.param(use_the_exact_gelu, "mlp", id="exact GELU"),
]


class LogitsOfIds(nn.Module):
    """transformers' GPT-2 from ids to logits; the mask is given because transformers' own does not trace."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        length = input_ids.shape[1]
        causal = torch.triu(torch.full((CONTEXT, CONTEXT), -1e9), diagonal=1)[:length, :length]
        logits: Tensor = self.model(input_ids, attention_mask=causal[None, None], use_cache=False).logits
        return logits


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """A small GPT-2 of transformers, and the folder it was saved to."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed; its models are needed")
    config = transformers.GPT2Config(
        vocab_size=VOCAB,
        n_positions=CONTEXT,
        n_embd=16,
        n_layer=2,
        n_head=2,
        attn_implementation="eager",
        bos_token_id=0,
        eos_token_id=0,
    )
    model = samples.seeded(transformers.GPT2LMHeadModel(config), spread=0.3).eval()
    folder = tmp_path_factory.mktemp("gpt2") / "checkpoint"
    model.save_pretrained(folder)
    return model, folder


def traced(model: nn.Module, path: Path, shape: tuple[int, int], **axes: Any) -> Path:
    """The file that torch's tracing exporter writes."""
    ids = torch.zeros(shape, dtype=torch.int64)
    torch.onnx.export(
        LogitsOfIds(model),
        (ids,),
        str(path),
        dynamo=False,
        opset_version=17,
        input_names=["input_ids"],
        output_names=["logits"],
        **axes,
    )
    return path


@pytest.fixture(scope="module")
def traced_file(gpt2: tuple[nn.Module, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uncached graph with both axes dynamic."""
    axes = {0: "batch", 1: "sequence"}
    path = tmp_path_factory.mktemp("traced") / "traced.onnx"
    return traced(gpt2[0], path, (2, 5), dynamic_axes={"input_ids": axes, "logits": axes})


@pytest.fixture
def ours(byte_portable: Path, tmp_path: Path) -> tuple[Path, tuple[object, ...]]:
    """Our own cached graph with nothing beside it, and the options that name its checkpoint."""
    return _bare(byte_portable, tmp_path)


def _bare(artifact: Path, tmp_path: Path) -> tuple[Path, tuple[object, ...]]:
    checkpoint = artifact.parent / "checkpoint"
    path = copied(artifact / "onnx" / "model.onnx", tmp_path / "bare", nothing)
    return path, ("--against", checkpoint / "model.pth", "--config", checkpoint / "book.json")


def report_of(run: Run) -> dict[str, Any]:
    assert run.code == 0, run.err
    report: dict[str, Any] = run.json()
    assert report["passed"] is True
    return report


def names_of(report: dict[str, Any]) -> set[str]:
    return {case["name"] for case in report["cases"]["onnx"]}


@pytest.mark.parametrize("artifact", ["byte_portable", "byte_original"])
def test_our_cached_graph_passes_as_anybodys_file_with_cache_masks_and_chunks(
    artifact: str, cli: Cli, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path, against = _bare(request.getfixturevalue(artifact), tmp_path)
    report = report_of(cli("validate", path, *against, "--json"))
    assert {"cache-steps", "cache-chunks", "pad-left", "pad-right", "pad-left-chunks", "greedy"} <= names_of(report)
    assert not any("there is no" in note or "not run" in note for note in report["notes"])


def test_a_traced_gpt2_passes_and_what_it_lacks_is_said(
    cli: Cli, traced_file: Path, gpt2: tuple[nn.Module, Path]
) -> None:
    run = cli("validate", traced_file, "--against", gpt2[1])
    assert run.code == 0, run.err
    assert run.out.startswith(f"PASSED  {traced_file}")
    said = " ".join(run.out.split())
    assert "note: there is no past; every case is run in one pass" in said
    assert "note: there is no mask; padded rows are not compared" in said
    assert "not run, for what the file lacks: cache-steps, cache-chunks, pad-left, pad-right, pad-left-chunks" in said

    report = report_of(cli("validate", traced_file, "--against", gpt2[1], "--json"))
    assert {"grid-1x1", f"grid-5x{CONTEXT}"} <= names_of(report)
    assert not any(name.startswith(("pad-", "cache-", "greedy")) for name in names_of(report))


@pytest.mark.parametrize(
    ("shape", "axes", "said", "compared"),
    [
        ((2, 17), {}, ["batch axis is frozen to 2", "sequence axis is frozen to 17"], {(2, 17)}),
        ((2, 7), {}, ["batch axis is frozen to 2", "sequence axis is frozen to 7"], {(2, 7)}),
        ((2, 17), {0: "batch"}, ["sequence axis is frozen to 17"], {(1, 17), (2, 17), (5, 17)}),
    ],
    ids=["a shape of the grid", "no shape of the grid", "one axis"],
)
def test_of_a_frozen_graph_only_that_shape_is_compared_and_the_axis_is_named(
    cli: Cli,
    gpt2: tuple[nn.Module, Path],
    tmp_path: Path,
    shape: tuple[int, int],
    axes: dict[int, str],
    said: list[str],
    compared: set[tuple[int, int]],
) -> None:
    frozen = traced(gpt2[0], tmp_path / "frozen.onnx", shape, dynamic_axes={"input_ids": axes, "logits": axes})
    report = report_of(cli("validate", frozen, "--against", gpt2[1], "--json"))
    assert {(case["batch"], case["sequence"]) for case in report["cases"]["onnx"]} == compared
    told = [note for note in report["notes"] if "is frozen to" in note]
    assert len(told) == len(said)
    for words in said:
        assert any(f"the {words}; only that shape is compared" in note for note in told)


@pytest.mark.parametrize(("edit", "part"), FAULTS)
def test_a_fault_in_a_traced_file_is_named_by_layer_and_part(
    edit: Edit, part: str, cli: Cli, traced_file: Path, gpt2: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    damaged = copied(traced_file, tmp_path / "edited", edit)
    run = cli("validate", damaged, "--against", gpt2[1])
    run.refused(3, f"do not use {damaged}")
    assert f"first fault in layer 1, {part}:" in run.out


@pytest.mark.parametrize(("edit", "part"), FAULTS)
def test_a_fault_in_our_own_file_is_named_by_layer_and_part(
    edit: Edit, part: str, cli: Cli, ours: tuple[Path, tuple[object, ...]], tmp_path: Path
) -> None:
    path, against = ours
    damaged = copied(path, tmp_path / "edited", edit)
    run = cli("validate", damaged, *against)
    run.refused(3, f"do not use {damaged}")
    assert f"first fault in layer 1, {part}:" in run.out


def test_a_file_saved_again_without_a_fault_passes(
    cli: Cli, traced_file: Path, gpt2: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    report_of(cli("validate", copied(traced_file, tmp_path / "edited", nothing), "--against", gpt2[1], "--json"))


def add_an_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("temperature", TensorProto.FLOAT, [1]))


def name_two_inputs_of_ids(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("segments", TensorProto.INT64, ["batch", "sequence"]))


def give_only_the_norm(model: onnx.ModelProto) -> None:
    norm = [node for node in model.graph.node if node.op_type == "LayerNormalization"][-1].output[0]
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(norm, TensorProto.FLOAT, ["batch", "sequence", 16]))


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (
            add_an_input,
            "the file has inputs of unknown meaning: ['temperature']; state the meaning by --role INPUT=ROLE, of ids",
        ),
        (name_two_inputs_of_ids, "the file has inputs of unknown meaning: ['segments']; state the meaning by --role"),
        (give_only_the_norm, f"the file has no output of {VOCAB} logits among ["),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_inputs_and_outputs_that_are_no_gpts_are_refused_by_name(
    edit: Edit, words: str, cli: Cli, traced_file: Path, gpt2: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    odd = copied(traced_file, tmp_path / "edited", edit)
    cli("validate", odd, "--against", gpt2[1]).refused(1, words)


def test_a_file_that_is_not_onnx_is_told(cli: Cli, gpt2: tuple[nn.Module, Path], tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("not a graph")
    words = (f"{tmp_path / 'text.onnx'} is not an ONNX model, or is cut short: ", "export or copy it again")
    cli("validate", tmp_path / "text.onnx", "--against", gpt2[1]).refused(1, *words)


def test_a_file_without_against_is_a_usage_error(cli: Cli, traced_file: Path) -> None:
    words = f"{traced_file} does not say what it was made from; name the source with --against"
    cli("validate", traced_file).refused(2, words)


@pytest.fixture(scope="module")
def optimum_file(gpt2: tuple[nn.Module, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Optimum makes of the small GPT-2, with a past."""
    if not OPTIMUM:
        pytest.skip("no optimum-cli: set GPT_EXPORT_OPTIMUM_CLI or put it on PATH; traced files are tested above")
    folder = tmp_path_factory.mktemp("optimum")
    options = ["--model", gpt2[1], "--task", "text-generation-with-past"]
    subprocess.run(
        [str(part) for part in (OPTIMUM, "export", "onnx", *options, folder)],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=True,
        timeout=200,
    )
    return folder / "model.onnx"


def test_optimums_export_passes_with_its_cache(cli: Cli, optimum_file: Path, gpt2: tuple[nn.Module, Path]) -> None:
    report = report_of(cli("validate", optimum_file, "--against", gpt2[1], "--json"))
    assert {"cache-steps", "pad-left-chunks", "greedy"} <= names_of(report)


def test_a_transposed_weight_in_optimums_export_is_named_by_its_layer(
    cli: Cli, optimum_file: Path, gpt2: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    damaged = copied(optimum_file, tmp_path / "edited", transpose_the_attention_output)
    run = cli("validate", damaged, "--against", gpt2[1])
    run.refused(3, f"do not use {damaged}")
    assert "first fault in layer 1, attention:" in run.out
