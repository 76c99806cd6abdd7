"""The cached graph as consumers were promised it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from gpt_export.graph.opsets import OPSETS
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from tests import samples
from tests.byte_gpt import CONFIG, CONTEXT, byte_gpt, save_byte_gpt
from tests.conftest import Run
from tests.tolerances import LIMITS

HEADS, HEAD_DIM, LAYERS, VOCAB = 3, 8, 2, 257
SEQUENCE, PAST = "sequence_length", "past_sequence_length"
TOTAL = "past_sequence_length + sequence_length"

INPUTS = [
    ("input_ids", "INT64", ["batch_size", SEQUENCE]),
    ("attention_mask", "INT64", ["batch_size", TOTAL]),
    ("position_ids", "INT64", ["batch_size", SEQUENCE]),
    ("past_key_values.0.key", "FLOAT", ["batch_size", HEADS, PAST, HEAD_DIM]),
    ("past_key_values.0.value", "FLOAT", ["batch_size", HEADS, PAST, HEAD_DIM]),
    ("past_key_values.1.key", "FLOAT", ["batch_size", HEADS, PAST, HEAD_DIM]),
    ("past_key_values.1.value", "FLOAT", ["batch_size", HEADS, PAST, HEAD_DIM]),
]
OUTPUTS = [
    ("logits", "FLOAT", ["batch_size", SEQUENCE, VOCAB]),
    ("present.0.key", "FLOAT", ["batch_size", HEADS, TOTAL, HEAD_DIM]),
    ("present.0.value", "FLOAT", ["batch_size", HEADS, TOTAL, HEAD_DIM]),
    ("present.1.key", "FLOAT", ["batch_size", HEADS, TOTAL, HEAD_DIM]),
    ("present.1.value", "FLOAT", ["batch_size", HEADS, TOTAL, HEAD_DIM]),
]


@pytest.fixture(scope="module")
def path(byte_portable: Path) -> Path:
    return byte_portable / "onnx" / "model.onnx"


def described(values: list[onnx.ValueInfoProto]) -> list[tuple[str, str, list[str | int]]]:
    return [
        (
            value.name,
            onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type),
            [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim],
        )
        for value in values
    ]


def feed(ids: np.ndarray, past: list[np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """Inputs for new ids behind a past, nothing padded."""
    batch, length = ids.shape
    past = past or [np.zeros((batch, HEADS, 0, HEAD_DIM), np.float32)] * (2 * LAYERS)
    before = past[0].shape[2]
    names = [name for name, *_ in INPUTS]
    mask = np.ones((batch, before + length), np.int64)
    positions = np.tile(np.arange(before, before + length), (batch, 1))
    return dict(zip(names, [ids, mask, positions, *past], strict=True))


def off_by(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def test_names_order_types_and_dims_are_as_promised(path: Path) -> None:
    graph = onnx.load(path).graph
    assert described(graph.input) == INPUTS
    assert described(graph.output) == OUTPUTS


def test_the_manifest_says_the_same(byte_original: Path) -> None:
    from gpt_export.artifact.reading import Artifact

    variant = Artifact.open(byte_original).manifest.variants["fp32"]
    assert variant["cache"] == {"n_layers": LAYERS, "n_heads": HEADS, "head_dim": HEAD_DIM}
    for key, wanted in (("inputs", INPUTS), ("outputs", OUTPUTS)):
        assert [(value["name"], value["dims"]) for value in variant[key]] == [(name, dims) for name, _, dims in wanted]


def test_there_is_no_constant_of_the_contexts_square(path: Path) -> None:
    graph = onnx.load(path).graph
    weights = {tuple(parameter.shape) for parameter in byte_gpt().parameters()}
    constants = list(graph.initializer)
    constants += [attribute.t for node in graph.node for attribute in node.attribute if attribute.HasField("t")]
    sizes = [
        array.size
        for array in map(numpy_helper.to_array, constants)
        if array.shape not in weights and array.shape[::-1] not in weights
    ]
    assert max(sizes, default=0) < CONTEXT  # a causal mask would have CONTEXT * CONTEXT


def test_the_operators_are_standard_ones(path: Path) -> None:
    model = onnx.load(path)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert [entry.domain for entry in model.opset_import] in (["" for _ in model.opset_import], ["ai.onnx"])
    assert not {node.op_type for node in model.graph.node} & {"If", "Loop", "Scan", "SplitToSequence", "SequenceAt"}


@pytest.mark.parametrize("steps", [(6,), (1, 5), (2, 2, 2), (5, 1)])
def test_an_empty_past_is_valid_and_a_grown_one_continues_it(path: Path, steps: tuple[int, ...]) -> None:
    session, ids, past, logits = ort.InferenceSession(path), samples.random_ids(2, 6, VOCAB), None, []
    for start, length in zip(np.cumsum((0, *steps)), steps, strict=False):
        found, *past = session.run(None, feed(ids[:, start : start + length], past))
        logits.append(found)
        assert {array.shape for array in past} == {(2, HEADS, start + length, HEAD_DIM)}
    wanted = samples.eager_logits(byte_gpt(), ids)
    assert off_by(np.concatenate(logits, axis=1), wanted) <= LIMITS["relative"]


@pytest.mark.parametrize("past", [0, 3])
def test_onnxs_reference_evaluator_agrees(path: Path, past: int) -> None:
    ids = samples.random_ids(2, 7, VOCAB)
    evaluator, session = ReferenceEvaluator(str(path)), ort.InferenceSession(path)
    before = session.run(None, feed(ids[:, :past]))[1:] if past else None
    wanted = session.run(None, feed(ids[:, past:], before))
    for found, expected in zip(evaluator.run(None, feed(ids[:, past:], before)), wanted, strict=True):
        assert off_by(found, expected) <= LIMITS["relative"]


def test_a_row_of_nothing_but_padding_gives_finite_numbers(path: Path) -> None:
    inputs = feed(samples.random_ids(2, 4, VOCAB))
    inputs["attention_mask"][1] = 0
    for array in ort.InferenceSession(path).run(None, inputs):
        assert np.isfinite(array).all()


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("cached", [True, False])
def test_every_opset_passes_the_gate(opset: int, cached: bool, cli: Callable[..., Run], tmp_path: Path) -> None:
    saved, config_file = save_byte_gpt(tmp_path / "in")
    choices = ["--profile", "portable", *([] if cached else ["--no-cache"])]
    run = cli(
        "onnx",
        saved,
        "--config",
        config_file,
        "--output",
        tmp_path / "out",
        "--opset",
        opset,
        *choices,
        "--profile",
        "portable",
    )
    assert run.code == 0, run.err
    model = onnx.load(tmp_path / "out" / "onnx" / "model.onnx")
    assert {entry.version for entry in model.opset_import} == {opset}
    names = [value.name for value in model.graph.input]
    assert names == [name for name, *_ in INPUTS] if cached else ["input_ids"]
    onnx.checker.check_model(model, full_check=True)


def test_the_sizes_above_are_those_of_the_model() -> None:
    assert (CONFIG["n_heads"], CONFIG["emb_dim"] // HEADS, CONFIG["n_layers"]) == (HEADS, HEAD_DIM, LAYERS)
    assert CONFIG["vocab_size"] == VOCAB
