"""Products and lookups of any module with quantised weights: which are reached, how they are stored, what comes out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from gpt_export.artifact.onnx_model import read_model
from gpt_export.errors import GraphError
from gpt_export.gate.codes_check import check_codes
from gpt_export.graph.script import script
from gpt_export.graph.to_onnx import to_onnx
from gpt_export.passes import portable_passes, quantizing_passes, run_passes
from gpt_export.passes.certificate import check_quantized, operator_counts
from gpt_export.passes.quantized.products import find_heads, find_products, token_lookups
from gpt_export.passes.quantized.quantize_products import QuantizeProducts
from gpt_export.runtime.session import may_saturate
from gpt_export.runtime.signature import Head, example_sizes, uncached
from gpt_export.sources.source import Source, source_of_module
from gpt_export.weights.layout import layout_of
from gpt_export.weights.onnx_file import write_onnx
from gpt_export.weights.quantize.schemes import PLANS
from gpt_export.weights.quantize.weights import QuantizedWeights
from torch import Tensor, nn

VOCAB, WIDTH, CONTEXT = 97, 48, 16


class InputsFirst(nn.Module):
    """Linear layers whose weight is stored (inputs, outputs), as in GPT-2's Conv1D."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, WIDTH)
        self.up = nn.Parameter(torch.randn(WIDTH, 80) / 7)
        self.bias = nn.Parameter(torch.randn(80))
        self.down = nn.Parameter(torch.randn(80, WIDTH) / 9)
        self.head = nn.Linear(WIDTH, VOCAB, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        logits: Tensor = self.head(x + torch.relu(x @ self.up + self.bias) @ self.down)
        return logits


class Shared(nn.Module):
    """One layer that is used twice, and a head that is tied and has a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, WIDTH)
        self.layer = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, VOCAB)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        x = x + torch.tanh(self.layer(x))
        x = x + torch.tanh(self.layer(x))
        logits: Tensor = self.head(x)
        return logits


class TwoTables(nn.Module):
    """Two tables that are read by token and one by position."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Embedding(VOCAB, WIDTH)
        self.second = nn.Embedding(VOCAB, WIDTH)
        self.place = nn.Embedding(CONTEXT, WIDTH)
        self.head = nn.Linear(WIDTH, VOCAB, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1], device=ids.device)
        logits: Tensor = self.head(self.first(ids) * torch.sigmoid(self.second(ids)) + self.place(places))
        return logits


MODULES: dict[str, Callable[[], nn.Module]] = {"inputs first": InputsFirst, "shared": Shared, "two tables": TwoTables}
WITHIN = {"int8": 0.03, "int4": 0.35}


@pytest.fixture(scope="module", params=MODULES)
def source(request: pytest.FixtureRequest) -> Source:
    torch.manual_seed(5)
    module = MODULES[request.param]().eval()
    return source_of_module(module, name="m", record={}, vocab_size=VOCAB, context_length=CONTEXT)


def portable(source: Source) -> ir.Model:
    graph = to_onnx(script(source.skeleton), uncached(Head(width=VOCAB)), 18, example_sizes(CONTEXT), "meta")
    return run_passes(graph, portable_passes(source.first_names()))


def logits(model: ir.Model, source: Source, path: Path, ids: np.ndarray) -> np.ndarray:
    layouts = [layout for value in model.graph.inputs if (layout := layout_of(value))]
    file = write_onnx(model, QuantizedWeights(source.weights, layouts), uncached(Head(width=VOCAB)), path)
    coded = {name: layout for name, layout in file.layouts.items() if layout.coded}
    assert check_codes(read_model(path), source.weights, coded).faults == ()
    options: Any = ort.SessionOptions()
    options.log_severity_level = 3
    if may_saturate():
        options.add_session_config_entry("session.x64quantprecision", "1")
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(["logits"], {"input_ids": ids})[0]
    return found


@pytest.mark.parametrize("precision", WITHIN)
def test_a_quantised_module_stays_near(precision: str, source: Source, tmp_path: Path) -> None:
    ids = np.random.default_rng(3).integers(0, VOCAB, (3, 7))
    model = portable(source)
    wanted = source.reference()(torch.from_numpy(ids)).detach().numpy()
    quantised = run_passes(model, quantizing_passes(PLANS[precision]))  # type: ignore[index]
    check_quantized(model, operator_counts(quantised), precision)  # type: ignore[arg-type]
    error = np.abs(logits(quantised, source, tmp_path / "m.onnx", ids) - wanted).max() / np.abs(wanted).max()
    assert 0 < error < WITHIN[precision]


@pytest.mark.parametrize("precision", WITHIN)
def test_every_weight_of_a_product_is_stored_once(precision: str, source: Source) -> None:
    model = portable(source)
    weights = {product.weight.name for product in find_products(model.graph)}
    tables = {value.name for value in model.graph.inputs if token_lookups(value)}
    quantised = run_passes(model, quantizing_passes(PLANS[precision]))  # type: ignore[index]
    stored = Counter(value.name for value in quantised.graph.inputs if layout_of(value))
    assert set(stored.values()) == {1}
    for name in weights | tables:
        assert f"{name}.codes" in stored
        assert name not in stored
    assert not find_products(quantised.graph)


def test_a_table_of_positions_stays_as_it_is() -> None:
    torch.manual_seed(5)
    source = source_of_module(TwoTables().eval(), name="m", record={}, vocab_size=VOCAB, context_length=CONTEXT)
    quantised = run_passes(portable(source), quantizing_passes(PLANS["int4"]))
    assert "place.weight" in {value.name for value in quantised.graph.inputs}


class OutOfReach(nn.Module):
    """Its weights are multiplied as three axes, a matrix for each expert."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, WIDTH)
        self.experts = nn.Parameter(torch.randn(4, WIDTH, VOCAB))

    def forward(self, ids: Tensor) -> Tensor:
        return torch.matmul(self.embedding(ids).unsqueeze(1), self.experts).sum(dim=1)


def test_weights_that_no_operator_takes_in_codes_are_an_error() -> None:
    source = source_of_module(OutOfReach().eval(), name="m", record={}, vocab_size=VOCAB, context_length=CONTEXT)
    with pytest.raises(GraphError, match="only 0% of the weights in products can be quantised"):
        QuantizeProducts(PLANS["int4"]).call(portable(source))


def test_a_product_that_was_left_out_is_an_error(source: Source) -> None:
    model = portable(source)
    counts = operator_counts(run_passes(model, quantizing_passes(PLANS["int4"])))
    for name in ("MatMulNBits", "GatherBlockQuantized"):
        with pytest.raises(GraphError, match="leave that precision out"):
            check_quantized(model, {**counts, name: counts[name] - 1}, "int4")


def test_the_head_is_what_the_logits_come_from_and_nothing_in_front_of_it() -> None:
    # A tied head is flattened and unflattened by sizes that are read off what it reads: those are no way to the scores.
    torch.manual_seed(5)
    source = source_of_module(Shared().eval(), name="m", record={}, vocab_size=VOCAB, context_length=CONTEXT)
    graph = portable(source).graph
    products = find_products(graph)
    heads = [product for product in products if product.node in find_heads(graph, products)]
    assert len(products) == 3
    assert [product.outputs for product in heads] == [VOCAB]
