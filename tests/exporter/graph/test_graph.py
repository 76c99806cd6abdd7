"""Graphs as they are published: names, dims, opsets, and that they compute what the module computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime as ort
import pytest
import torch
from gpt_export.artifact.reading import Artifact
from gpt_export.errors import ConfigError, GptExportError, GraphError
from gpt_export.graph.opsets import DEFAULT_OPSET, OPSETS
from gpt_export.runtime.session import Session
from torch import Tensor, nn

from tests import samples
from tests.tolerances import LIMITS

SHAPES = [(1, 1), (2, 1), (1, 3), (3, 3), (1, 4), (2, 17), (5, samples.CONTEXT)]


def graph_of(artifact: Artifact) -> onnx.ModelProto:
    return onnx.load(artifact.folder / "onnx" / "model.onnx")


def test_the_signature_has_the_promised_names_and_dynamic_axes(export_tiny: Callable[..., Artifact]) -> None:
    graph = graph_of(export_tiny(samples.tiny_dummy())).graph
    (ids,), (logits,) = graph.input, graph.output
    assert (ids.name, logits.name) == ("input_ids", "logits")
    assert ids.type.tensor_type.elem_type == onnx.TensorProto.INT64
    assert logits.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert [dim.dim_param for dim in ids.type.tensor_type.shape.dim] == ["batch_size", "sequence_length"]
    dims = logits.type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch_size", "sequence_length", samples.VOCAB]


@pytest.mark.parametrize("make", [samples.tiny_gpt, *samples.SCRIPTABLE], ids=lambda make: make.__name__)
def test_any_scriptable_module_gives_eagers_logits_at_every_shape(
    make: Callable[[], nn.Module],
    export_tiny: Callable[..., Artifact],
    max_difference: Callable[..., float],
) -> None:
    module = samples.seeded(make()).eval()
    session = Session.open(export_tiny(module).folder)
    for batch, sequence in SHAPES:
        ids = samples.random_ids(batch, sequence)
        assert max_difference(session, module, ids) <= LIMITS["fp32"], (batch, sequence)


def test_control_flow_on_the_sequence_is_in_the_graph(export_tiny: Callable[..., Artifact]) -> None:
    graph = graph_of(export_tiny(samples.seeded(samples.Branching()))).graph
    assert "If" in {node.op_type for node in graph.node}


def test_a_loop_over_the_sequence_is_in_the_graph(export_tiny: Callable[..., Artifact]) -> None:
    graph = graph_of(export_tiny(samples.seeded(samples.Looping()))).graph
    assert "Loop" in {node.op_type for node in graph.node}


@pytest.mark.parametrize("opset", OPSETS)
def test_each_opset_loads_and_agrees(
    opset: int, export_tiny: Callable[..., Artifact], max_difference: Callable[..., float]
) -> None:
    module = samples.tiny_gpt()
    artifact = export_tiny(module, opset=opset)
    assert {entry.domain: entry.version for entry in graph_of(artifact).opset_import}[""] == opset
    assert artifact.manifest.variants["fp32"]["opset"] == artifact.manifest.export["opset"] == opset
    assert max_difference(Session.open(artifact.folder), module, samples.random_ids(3, 9)) <= LIMITS["fp32"]


def test_opsets_17_to_20_are_offered() -> None:
    assert tuple(OPSETS) == (17, 18, 19, 20)
    assert DEFAULT_OPSET in OPSETS


@pytest.mark.parametrize("opset", [16, 21, 0, -1])
def test_other_opsets_are_refused_before_anything_is_written(
    opset: int, export_tiny: Callable[..., Artifact], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=f"opset {opset} is not supported; choose one of 17, 18, 19, 20"):
        export_tiny(samples.tiny_dummy(), opset=opset)
    assert list(tmp_path.iterdir()) == []


def test_an_operator_without_onnx_form_is_named(
    export_tiny: Callable[..., Artifact], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(GraphError, match=r"aten::special_bessel_j0.*not supported") as caught:
        export_tiny(samples.NoOperator())
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().out == ""  # torch would print the whole graph there


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (samples.Raises, ["Raises", "ValueError: no weights for ids of shape [2, 3]", "samples.py, line "]),
        (samples.TwoInputs, ["TwoInputs", "give mask of its forward a default", "one int64 tensor"]),
        (samples.DoesNotScript, ["DoesNotScript does not script", "samples.py, line "]),
    ],
)
def test_a_module_that_does_not_fit_is_refused_in_one_sentence(
    make: Callable[[], nn.Module], words: list[str], export_tiny: Callable[..., Artifact], tmp_path: Path
) -> None:
    with pytest.raises(GptExportError) as caught:
        export_tiny(make())
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    assert list(tmp_path.iterdir()) == []


def test_another_vocabulary_than_the_modules_is_refused(export_tiny: Callable[..., Artifact]) -> None:
    with pytest.raises(GptExportError, match="takes 29 ids and gives 29 scores, neither of them the vocab_size 30"):
        export_tiny(samples.Plain(), vocab_size=30)


def test_something_that_is_no_module_is_refused(export_tiny: Callable[..., Artifact]) -> None:
    with pytest.raises(GptExportError, match=r"not a torch\.nn\.Module"):
        export_tiny(29)  # type: ignore[arg-type]


@pytest.mark.parametrize("training", [True, False])
def test_the_module_keeps_the_modes_it_came_in(training: bool, export_tiny: Callable[..., Artifact]) -> None:
    module = samples.tiny_gpt().train(training)
    module.trf_blocks[0].eval()
    modes = [part.training for part in module.modules()]
    export_tiny(module)
    assert [part.training for part in module.modules()] == modes


def test_the_mode_comes_back_after_a_failure_too(export_tiny: Callable[..., Artifact]) -> None:
    module = samples.DoesNotScript().train()
    with pytest.raises(GptExportError):
        export_tiny(module)
    assert all(part.training for part in module.modules())


def test_an_export_leaves_the_weights_and_their_flags_alone(export_tiny: Callable[..., Artifact]) -> None:
    module = samples.tiny_gpt()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    pointers = {name: tensor.data_ptr() for name, tensor in module.state_dict().items()}
    export_tiny(module)
    after = module.state_dict()
    assert all(before[name].equal(after[name]) for name in before)
    assert {name: tensor.data_ptr() for name, tensor in after.items()} == pointers
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def test_the_file_is_plain_onnx_with_one_input(export_tiny: Callable[..., Artifact]) -> None:
    path = export_tiny(samples.tiny_gpt(), cache=False).folder / "onnx" / "model.onnx"
    onnx.checker.check_model(str(path), full_check=True)
    session = ort.InferenceSession(str(path))
    assert [value.name for value in session.get_inputs()] == ["input_ids"]
    assert [value.name for value in session.get_outputs()] == ["logits"]
    assert {node.domain for node in onnx.load(path).graph.node} <= {"", "ai.onnx"}


def test_onnxs_reference_evaluator_agrees(export_tiny: Callable[..., Artifact]) -> None:
    from onnx.reference import ReferenceEvaluator

    module = samples.tiny_gpt()
    artifact = export_tiny(module, cache=False)
    ids = samples.random_ids(2, 7)
    (found,) = ReferenceEvaluator(str(artifact.folder / "onnx" / "model.onnx")).run(None, {"input_ids": ids})
    assert abs(found - samples.eager_logits(module, ids)).max() <= LIMITS["fp32"]


def test_no_weight_is_transposed_in_the_graph(export_tiny: Callable[..., Artifact]) -> None:
    model = graph_of(export_tiny(samples.tiny_dummy()))
    weights = {tensor.name for tensor in model.graph.initializer}
    assert not [node for node in model.graph.node if node.op_type == "Transpose" and node.input[0] in weights]


class ThreeAxes(samples.WithEmbedding):
    """A weight of three axes that is multiplied transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.zeros(1, 8, 8))

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.emb(ids) @ self.mix.transpose(1, 2))


class ThreeAxesTwice(ThreeAxes):
    """The same weight read as it is, too."""

    def forward(self, ids: Tensor) -> Tensor:
        return self.head((self.emb(ids) @ self.mix) @ self.mix.transpose(1, 2))


class NoElements(samples.WithEmbedding):
    """A buffer without elements, joined to the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("prefix", torch.zeros(0, 8))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.emb(ids)
        return self.head(torch.cat([self.prefix.unsqueeze(0).expand(x.shape[0], -1, -1), x], dim=1))


@pytest.mark.parametrize("make", [ThreeAxes, ThreeAxesTwice, NoElements], ids=lambda make: make.__name__)
def test_weights_of_unusual_shapes_export_and_agree(
    make: Callable[[], nn.Module], export_tiny: Callable[..., Artifact], max_difference: Callable[..., float]
) -> None:
    module = samples.seeded(make()).eval()
    session = Session.open(export_tiny(module).folder)
    for batch, sequence in SHAPES:
        ids = samples.random_ids(batch, sequence)
        assert max_difference(session, module, ids) <= LIMITS["fp32"], (batch, sequence)
