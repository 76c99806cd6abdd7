"""Each pass: what it does to the graph, that the numbers stay, that its input does, and that twice is once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from gpt_export.errors import GraphError
from gpt_export.passes import portable_passes, run_passes
from gpt_export.passes.portable.drop_unused_weights import DropUnusedWeights
from gpt_export.passes.portable.transpose_weights import TransposeWeights
from gpt_export.weights.layout import Layout, layout_of, set_layout
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

WIDTH, VOCAB = 3, 5
SHAPES = {"emb": (VOCAB, WIDTH), "head": (VOCAB, WIDTH), "idle": (4, 4), "bias": (VOCAB,)}
RNG = np.random.default_rng(0)
WEIGHTS = {name: RNG.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
IDS = np.array([[0, 4, 2], [1, 1, 3]])


def model(*, head_perm: tuple[int, ...] = (1, 0), head_read_twice: bool = False, weights: bool = True) -> ir.Model:
    """A small graph as the exporter leaves it: weights are inputs behind the ids, the linear weight is transposed."""
    nodes = [
        helper.make_node("Gather", ["emb", "input_ids"], ["x"], doc_string="from line 7"),
        helper.make_node("Transpose", ["head"], ["head_t"], perm=list(head_perm)),
        helper.make_node("MatMul", ["x", "head_t"], ["scores"]),
        helper.make_node("Add", ["scores", "bias"], ["logits"]),
        helper.make_node("Relu", ["scores"], ["unread"]),
    ]
    if head_read_twice:
        nodes.insert(0, helper.make_node("ReduceSum", ["head"], ["total"], keepdims=0))
        nodes[-2] = helper.make_node("Add", ["scores", "total"], ["logits"])
    inputs = [helper.make_tensor_value_info("input_ids", onnx.TensorProto.INT64, ["b", "s"])]
    inputs += [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, shape) for n, shape in SHAPES.items()]
    outputs = [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["b", "s", VOCAB])]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    made = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))
    if weights:
        for value in made.graph.inputs[1:]:
            set_layout(value, Layout.of(str(value.name)))
    return made


def run(graph: ir.Model) -> np.ndarray:
    """The logits, with every weight fed in the layout that it declares."""
    feed: dict[str, np.ndarray] = {"input_ids": IDS}
    for value in graph.graph.inputs[1:]:
        layout = layout_of(value)
        assert layout is not None
        array = WEIGHTS[layout.sources[0]]
        feed[str(value.name)] = array.T if layout.transposed else array
        assert value.shape is not None
        assert value.shape.numpy() == feed[str(value.name)].shape
    return ReferenceEvaluator(ir.to_proto(graph)).run(None, feed)[0]


def operators(graph: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in graph.graph)


def names(graph: ir.Model) -> list[str]:
    return [str(value.name) for value in graph.graph.inputs]


EXPECTED = (WEIGHTS["emb"].astype(np.float64)[IDS] @ WEIGHTS["head"].T.astype(np.float64)) + WEIGHTS["bias"]


def test_the_graph_of_these_tests_is_the_formula() -> None:
    assert np.allclose(run(model()), EXPECTED, atol=1e-6)


def test_the_oracle_tells_an_undeclared_transposition() -> None:
    graph = model()
    head = next(value for value in graph.graph.inputs if value.name == "head")
    set_layout(head, Layout.of("head").swapped())
    with pytest.raises(AssertionError):
        run(graph)


def test_a_transposed_weight_is_stored_transposed_and_says_so() -> None:
    result = TransposeWeights()(model())
    assert result.modified
    assert operators(result.model)["Transpose"] == 0
    head = next(value for value in result.model.graph.inputs if value.name == "head")
    assert layout_of(head) == Layout(("head",), transposed=True)
    assert head.shape is not None
    assert head.shape.numpy() == (WIDTH, VOCAB)
    assert np.allclose(run(result.model), EXPECTED, atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: model(head_read_twice=True),
        lambda: model(weights=False),
    ],
    ids=["something else reads it", "it is no weight"],
)
def test_a_weight_that_must_stay_as_it_is_stays(make: Callable[[], ir.Model]) -> None:
    result = TransposeWeights()(make())
    assert not result.modified
    assert operators(result.model)["Transpose"] == 1


def test_unused_weights_are_dropped_and_others_are_not() -> None:
    result = DropUnusedWeights()(model())
    assert result.modified
    assert names(result.model) == ["input_ids", "emb", "head", "bias"]
    assert np.allclose(run(result.model), EXPECTED, atol=1e-6)


def test_an_unused_input_that_is_no_weight_is_not_dropped() -> None:
    result = DropUnusedWeights()(model(weights=False))
    assert not result.modified
    assert "idle" in names(result.model)


@pytest.mark.parametrize("make", [TransposeWeights, DropUnusedWeights])
def test_a_pass_run_twice_changes_nothing_more(make: Callable[[], ir.passes.PassBase]) -> None:
    once = make()(model()).model
    before = ir.to_proto(once).SerializeToString()
    again = make()(once)
    assert not again.modified
    assert ir.to_proto(again.model).SerializeToString() == before


def test_all_passes_together_keep_the_numbers_and_leave_their_input_alone() -> None:
    given = model()
    before = ir.to_proto(given).SerializeToString()
    first_names = {name: name for name in SHAPES}
    result = run_passes(given, portable_passes(first_names))
    assert ir.to_proto(given).SerializeToString() == before
    assert layout_of(given.graph.inputs[2]) == Layout.of("head")
    assert operators(result) == Counter(Gather=1, MatMul=1, Add=1)
    assert names(result) == ["input_ids", "emb", "head", "bias"]
    assert not any(node.doc_string for node in result.graph)
    assert np.allclose(run(result), EXPECTED, atol=1e-6)


def test_all_passes_run_twice_change_nothing_more() -> None:
    first_names = {name: name for name in SHAPES}
    once = run_passes(model(), portable_passes(first_names))
    twice = run_passes(once, portable_passes(first_names))
    assert ir.to_proto(once).SerializeToString() == ir.to_proto(twice).SerializeToString()


def test_a_pass_that_fails_is_named() -> None:
    class Breaks(ir.passes.InPlacePass):
        def call(self, model: ir.Model) -> ir.passes.PassResult:
            raise ValueError(f"no {model.graph.name}")

    with pytest.raises(GraphError, match="the pass Breaks failed"):
        run_passes(model(), [Breaks()])


def test_the_weights_of_these_tests_are_not_symmetric() -> None:
    assert not np.allclose(numpy_helper.to_array(numpy_helper.from_array(WEIGHTS["head"])), WEIGHTS["emb"])
