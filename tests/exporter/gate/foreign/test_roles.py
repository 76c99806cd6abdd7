"""Old layouts of inputs and outputs, stated roles, and files that are no decoders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from tests.conftest import Run
from tests.exporter.gate.foreign.test_foreign import VOCAB, copied, gpt2

assert gpt2  # a fixture
Cli = Callable[..., Run]


@pytest.fixture(scope="module")
def cached(gpt2: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A file with a cache and standard operators alone, and its checkpoint."""
    import gpt_export

    _, folder = gpt2
    out = tmp_path_factory.mktemp("cached") / "artifact"
    artifact = gpt_export.export(folder, out, profile="portable", cases=("grid",), single_file=True)
    return artifact.variant_path("fp32"), folder


def pairs_in_one_tensor(model: onnx.ModelProto) -> None:
    """past_0 and present_0 of (2, batch, heads, past, size), as onnxruntime's converter of GPT-2 wrote them."""
    graph = model.graph
    pasts = [value for value in graph.input if value.name.startswith("past_key_values.")]
    presents = [value for value in graph.output if value.name.startswith("present.")]
    shape = [dim.dim_value or dim.dim_param for dim in pasts[0].type.tensor_type.shape.dim]
    for value in pasts:
        graph.input.remove(value)
    for value in presents:
        graph.output.remove(value)
    graph.initializer.append(helper.make_tensor("axis", TensorProto.INT64, [1], [0]))
    for i, name in enumerate(("first", "second")):
        graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [], [i]))
    before, after = [], []
    for layer in range(len(pasts) // 2):
        before += [
            helper.make_node("Gather", [f"past_{layer}", which], [f"past_key_values.{layer}.{kind}"], axis=0)
            for which, kind in (("first", "key"), ("second", "value"))
        ]
        for kind in ("key", "value"):
            after.append(helper.make_node("Unsqueeze", [f"present.{layer}.{kind}", "axis"], [f"{layer}{kind}"]))
        after.append(helper.make_node("Concat", [f"{layer}key", f"{layer}value"], [f"present_{layer}"], axis=0))
        graph.input.append(helper.make_tensor_value_info(f"past_{layer}", TensorProto.FLOAT, [2, *shape]))
        grown = [2, *shape[:2], "all", shape[3]]
        graph.output.append(helper.make_tensor_value_info(f"present_{layer}", TensorProto.FLOAT, grown))
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)


def token_types(model: onnx.ModelProto) -> None:
    """An input that a GPT has no use for."""
    model.graph.input.append(helper.make_tensor_value_info("token_type_ids", TensorProto.INT64, ["batch", "seq"]))


def two_of_ids(model: onnx.ModelProto) -> None:
    """Names that say nothing."""
    rename(model, "input_ids", "a")
    model.graph.input.append(helper.make_tensor_value_info("b", TensorProto.INT64, ["batch", "seq"]))


def rename(model: onnx.ModelProto, old: str, new: str) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.name = new if value.name == old else value.name
    for node in model.graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = new if name == old else name


@pytest.mark.parametrize("edit", [pairs_in_one_tensor, token_types])
def test_an_old_layout_is_run_with_its_cache(edit: Any, cached: tuple[Path, Path], cli: Cli, tmp_path: Path) -> None:
    path, folder = cached
    run = cli("validate", copied(path, tmp_path / "old", edit), "--against", folder, "--json")
    assert run.code == 0, run.err
    report = run.json()
    names = {case["name"] for case in report["cases"]["onnx"]}
    assert {"cache-steps", "cache-chunks", "pad-left"} <= names
    if edit is token_types:
        assert "token_type_ids is fed zeros, which a GPT without token types does not have" in report["notes"]


@pytest.mark.parametrize("dims", [[], [1]])
def test_how_many_logits_to_keep_is_all_of_them_or_the_files_default(
    dims: list[int], cached: tuple[Path, Path], cli: Cli, tmp_path: Path
) -> None:
    path, folder = cached

    def demanded(model: onnx.ModelProto) -> None:
        model.graph.input.append(helper.make_tensor_value_info("num_logits_to_keep", TensorProto.INT64, dims))

    def renamed(model: onnx.ModelProto) -> None:
        demanded(model)
        rename(model, "num_logits_to_keep", "k")

    def with_default(model: onnx.ModelProto) -> None:
        renamed(model)
        model.graph.initializer.append(helper.make_tensor("k", TensorProto.INT64, dims, [0]))

    told = ("--against", folder, "--cases", "grid")
    for edit in (demanded, with_default):
        run = cli("validate", copied(path, tmp_path / edit.__name__, edit), *told)
        assert run.code == 0, run.err
    file = copied(path, tmp_path / "renamed", renamed)
    cli("validate", file, *told).refused(1, "inputs of unknown meaning: ['k']")
    run = cli("validate", file, *told, "--role", "k=keep")
    assert run.code == 0, run.err


def test_a_role_that_cannot_be_guessed_is_stated(cached: tuple[Path, Path], cli: Cli, tmp_path: Path) -> None:
    path, folder = cached
    file = copied(path, tmp_path / "odd", two_of_ids)
    cli("validate", file, "--against", folder).refused(1, "has 2 inputs that could be token ids", "--role INPUT=ids")
    told = ("validate", file, "--against", folder, "--cases", "grid")
    for pairs in (("a=ids", "b=types"), ("ids=a", "types=b")):
        run = cli(*told, "--role", pairs[0], "--role", pairs[1])
        assert run.code == 0, run.err
    cli(*told, "--role", "a=tokens").refused(2, "'a=tokens' states no role; pass NAME=ROLE, with a role of ids, mask")
    cli(*told, "--role", "c=ids").refused(2, "the file has no input or output 'c'")


@pytest.mark.parametrize(
    ("inputs", "output", "said"),
    [
        (
            {"input_ids": TensorProto.INT64},
            "last_hidden_state",
            "is an encoder or a body without a head, it gives last_hidden",
        ),
        (
            {"input_ids": TensorProto.INT64, "encoder_hidden_states": TensorProto.FLOAT},
            "logits",
            "is the decoder of an encoder-decoder, it takes encoder_hidden_states",
        ),
    ],
)
def test_what_is_no_decoder_is_refused_by_name(
    inputs: dict[str, int], output: str, said: str, cached: tuple[Path, Path], cli: Cli, tmp_path: Path
) -> None:
    _, folder = cached
    values = [
        helper.make_tensor_value_info(
            name, kind, ["batch", "seq"] if kind == TensorProto.INT64 else ["batch", "seq", 16]
        )
        for name, kind in inputs.items()
    ]
    width = 16 if output != "logits" else VOCAB
    table = helper.make_tensor("table", TensorProto.FLOAT, [VOCAB, width], [0.0] * VOCAB * width)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], [output])],
        "other",
        values,
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", "seq", width])],
        [table],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "x.onnx")
    cli("validate", tmp_path / "x.onnx", "--against", folder).refused(1, said)
