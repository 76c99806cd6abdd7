"""The road by torch.export: the contract of the script's road, from modules that do not script too."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from gpt_export.errors import ConfigError, GraphError
from gpt_export.graph.captured import distinct
from gpt_export.graph.exported_graph import first_names
from gpt_export.graph.opsets import OPSETS
from gpt_export.graph.torch_export import export_to_onnx
from gpt_export.passes import portable_passes, run_passes
from gpt_export.runtime.signature import Head, example_sizes, uncached
from gpt_export.weights.layout import layout_of
from gpt_export_models.blank import without_weights
from gpt_export_models.gpt import GPTModel
from torch import Tensor, nn

from tests import samples
from tests.exporter.graph.roads import exported, logits_of, scripted, with_weights
from tests.tolerances import LIMITS

SHAPES = [(1, 1), (2, 1), (1, 2), (3, 5), (1, 9), (4, samples.CONTEXT)]
"""None of them the shape of the example, (2, 3)."""
ON_META = (samples.tiny_gpt, samples.tiny_dummy, samples.Tied, samples.Buffers, samples.Scalar, samples.Half)


class WithTricks(samples.WithEmbedding):
    """What TorchScript has no words for: a lambda, keyword dicts, a comprehension over sizes, writing in place."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("causal", torch.triu(torch.ones(samples.CONTEXT, samples.CONTEXT), 1).bool())

    def forward(self, ids: Tensor, **options: bool) -> Tensor:
        double = lambda x: x + x  # noqa: E731
        x = double(self.emb(ids))
        length = ids.shape[1]
        scores = x @ x.transpose(1, 2)
        scores.masked_fill_(self.causal[:length, :length], -torch.inf)
        return self.head(torch.softmax(scores, dim=-1, **{"dtype": torch.float32}) @ x) * (1 + len(options))


class WritesIntoAView(samples.WithEmbedding):
    """Cannot be lowered node by node: the tensor is read again after a part of it was written."""

    def forward(self, ids: Tensor) -> Tensor:
        x = self.emb(ids).clone()
        x[..., :4] += 1.0
        x[:, :, 5].mul_(2.0)
        return self.head(x)


class HandNorm(samples.WithEmbedding):
    def __init__(self, unbiased: bool) -> None:
        super().__init__()
        self.unbiased = unbiased

    def forward(self, ids: Tensor) -> Tensor:
        x = self.emb(ids)
        variance = x.var(dim=-1, keepdim=True, unbiased=self.unbiased)
        return self.head((x - x.mean(dim=-1, keepdim=True)) / torch.sqrt(variance + 1e-5))


class TriesOneLength(samples.WithEmbedding):
    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.emb(ids) + torch.ones(3, 8, device=ids.device))


class OddLengthsApart(samples.WithEmbedding):
    def forward(self, ids: Tensor) -> Tensor:
        x = self.emb(ids)
        if ids.shape[1] % 2 == 1:
            x = 2 * x
        return self.head(x)


class CutsATable(samples.WithEmbedding):
    """torch asks here whether the sequence is as long as the table that it cuts; it need not be told."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("causal", torch.tril(torch.ones(samples.CONTEXT, samples.CONTEXT)).bool())

    def forward(self, ids: Tensor) -> Tensor:
        x = self.emb(ids)
        length = ids.shape[1]
        allowed = self.causal[:length, :length].view(1, length, 1, length).squeeze(2)
        return self.head(torch.softmax((x @ x.transpose(1, 2)).masked_fill(~allowed, -1e9), dim=-1) @ x)


class LooksAtValues(samples.WithEmbedding):
    def forward(self, ids: Tensor) -> Tensor:
        if ids.sum() > 3:
            return self.head(self.emb(ids))
        return self.head(2 * self.emb(ids))


class SecretOnMeta(samples.WithEmbedding):
    """A table made on the ids' device from numbers: on meta it has none."""

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.emb(ids) * torch.tensor([1.0, 2, 3, 4, 5, 6, 7, 8], device=ids.device))


class ComplexRotation(samples.WithEmbedding):
    """Rotary positions as complex numbers in a buffer, which ONNX does not have."""

    def __init__(self) -> None:
        super().__init__()
        angles = torch.outer(torch.arange(samples.CONTEXT).float(), torch.tensor([1.0, 0.3, 0.1, 0.03]))
        self.register_buffer("turns", torch.polar(torch.ones_like(angles), angles), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.emb(ids)
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], 4, 2))
        return self.head(torch.view_as_real(pairs * self.turns[: ids.shape[1]]).flatten(2))


class CalledInput(samples.WithEmbedding):
    """Has an argument with the name of a function of Python, as nn.Sequential has."""

    def forward(self, input: Tensor) -> Tensor:
        return self.head((lambda x: x)(self.emb(input)))


class CausalBeyondOne(samples.WithEmbedding):
    """Asks for a causal mask only where there is something to hide, which is a condition on the length."""

    def forward(self, ids: Tensor) -> Tensor:
        x = (lambda x: x)(self.emb(ids))
        return self.head(nn.functional.scaled_dot_product_attention(x, x, x, is_causal=ids.shape[1] > 1))


class BlocksOfBlocks(samples.WithEmbedding):
    """Attention with two axes between the batch and the sequence, and a mask for each of them."""

    def forward(self, ids: Tensor) -> Tensor:
        x = (lambda x: x)(self.emb(ids))
        split = x.unflatten(-1, (2, 2, -1)).permute(0, 2, 3, 1, 4)
        later = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device).tril()
        found = nn.functional.scaled_dot_product_attention(split, split, split, later.expand(2, 1, -1, -1))
        return self.head(found.permute(0, 3, 1, 2, 4).flatten(-3))


class Warns(samples.WithEmbedding):
    def forward(self, ids: Tensor) -> Tensor:
        print("a word on stdout")  # noqa: T201
        print("a word on stderr", file=sys.stderr)  # noqa: T201
        return self.head(self.emb(ids))


@pytest.mark.parametrize(
    "make",
    [
        *ON_META,
        *(WithTricks, WritesIntoAView, CutsATable, CalledInput, CausalBeyondOne, BlocksOfBlocks),
        lambda: HandNorm(False),
        lambda: HandNorm(True),
    ],
)
def test_a_graph_without_weights_gives_eagers_logits_at_shapes_the_export_did_not_see(
    make: Callable[[], nn.Module],
) -> None:
    module = samples.seeded(make()).eval()
    for found, shape in zip(logits_of(exported(module), module, SHAPES), SHAPES, strict=True):
        wanted = samples.eager_logits(module, samples.random_ids(*shape))
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() <= LIMITS["fp32"] * max(1.0, float(np.abs(wanted).max())), shape


@pytest.mark.parametrize("make", ON_META, ids=lambda make: make.__name__)
def test_both_roads_lead_to_the_same_numbers(make: Callable[[], nn.Module]) -> None:
    module = samples.seeded(make()).eval()
    ways = [logits_of(model, module, SHAPES) for model in (scripted(module), exported(module))]
    for one, other in zip(*ways, strict=True):
        assert np.abs(one - other).max() <= LIMITS["fp32"]


@pytest.mark.parametrize("make", ON_META, ids=lambda make: make.__name__)
def test_both_roads_name_inputs_outputs_and_weights_alike(make: Callable[[], nn.Module]) -> None:
    module = make().eval()
    passes = portable_passes(first_names(module))
    by_script, by_export = (run_passes(model, passes).graph for model in (scripted(module), exported(module)))
    assert [v.name for v in by_export.outputs] == [v.name for v in by_script.outputs] == ["logits"]
    found, wanted = (
        {v.name: (layout_of(v), str(v.shape), v.dtype) for v in graph.inputs} for graph in (by_export, by_script)
    )
    assert found == wanted


def test_the_passes_leave_no_transposed_weight_and_no_computed_reshape() -> None:
    graph = run_passes(exported(samples.tiny_gpt()), portable_passes({})).graph
    weights = {value for value in graph.inputs if layout_of(value)}
    assert not [node for node in graph if node.op_type == "Transpose" and node.inputs[0] in weights]
    shapes = [node.inputs[1] for node in graph if node.op_type == "Reshape"]
    assert shapes
    assert all(ir.convenience.get_const_tensor(shape) is not None for shape in shapes)


def test_passes_change_no_number() -> None:
    module = samples.tiny_gpt()
    model = exported(module)
    plain, passed = (logits_of(m, module, SHAPES) for m in (model, run_passes(model, portable_passes({}))))
    for one, other in zip(plain, passed, strict=True):
        assert np.abs(one - other).max() <= LIMITS["fp32"]


def test_the_file_is_plain_onnx_without_metadata_or_functions() -> None:
    module = samples.tiny_gpt()
    proto = onnx.load_from_string(with_weights(exported(module), module))
    onnx.checker.check_model(proto, full_check=True)
    assert {entry.domain for entry in proto.opset_import} == {""}
    assert not proto.functions
    assert not [node for node in proto.graph.node if node.metadata_props or node.doc_string or node.domain]


def test_nodes_carry_the_path_of_their_module() -> None:
    names = {node.name for node in exported(samples.tiny_gpt()).graph}
    assert {"/trf_blocks.0/att/W_query/MatMul", "/trf_blocks.1/ff/layers.0/Add", "/tok_emb/Gather"} <= names


@pytest.mark.parametrize("opset", OPSETS)
def test_each_opset_is_made_and_agrees(opset: int) -> None:
    module = samples.seeded(HandNorm(False)).eval()
    model = exported(module, opset)
    assert model.opset_imports[""] == opset
    (found,) = logits_of(model, module, [(3, 5)])
    assert np.abs(found - samples.eager_logits(module, samples.random_ids(3, 5))).max() <= LIMITS["fp32"]


def test_another_opset_is_refused() -> None:
    with pytest.raises(ConfigError, match="opset 16 is not supported"):
        exported(samples.Plain().eval(), 16)


@pytest.mark.parametrize(
    ("make", "words", "line"),
    [
        (samples.Branching, ["something else at sequence_length 4", "samples.py"], "if ids.shape[1] > 3"),
        (samples.Looping, ["fixes sequence_length at 3", "samples.py"], "for i in range(ids.shape[1])"),
        (OddLengthsApart, ["something else at sequence_length 2"], "if ids.shape[1] % 2"),
        (TriesOneLength, ["fixes sequence_length at 3"], None),
        (
            LooksAtValues,
            ["depends on the values of a tensor", "torch.where", "test_torch_export.py"],
            "if ids.sum() > 3",
        ),
        (samples.DoesNotScript, ["numpy", "samples.py"], ".numpy()"),
        (samples.NoOperator, ["bessel_j0", "samples.py"], "bessel_j0"),
        (samples.Raises, ["no weights for ids", "samples.py"], "raise ValueError"),
        (SecretOnMeta, ["no data without the module's weights"], None),
        (samples.ReturnsLast, ["logits has 2 axes"], None),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_sentence_with_the_users_line(
    make: Callable[[], nn.Module], words: list[str], line: str | None
) -> None:
    with pytest.raises(GraphError) as caught:
        exported(make().eval())
    message = str(caught.value)
    assert "\n" not in message
    assert "\x1b" not in message
    for word in words:
        assert word in message
    assert "site-packages" not in message
    if line is not None:
        file, number = message.partition("(/")[2].partition(")")[0].split(", line ")
        with open(f"/{file}", encoding="utf-8") as source:  # noqa: PTH123
            assert line in source.read().splitlines()[int(number) - 1]


@pytest.mark.parametrize("make", [samples.Loose, samples.NamesADevice, SecretOnMeta, ComplexRotation])
def test_a_module_that_does_not_run_on_meta_goes_with_its_weights_to_a_graph_without(
    make: Callable[[], nn.Module],
) -> None:
    module = samples.seeded(make()).eval()
    model = exported(module, meta=False)
    assert {v.name for v in model.graph.inputs if layout_of(v)} == {"emb.weight", "head.weight", "head.bias"}
    for found, shape in zip(logits_of(model, module, SHAPES), SHAPES, strict=True):
        assert np.abs(found - samples.eager_logits(module, samples.random_ids(*shape))).max() <= LIMITS["fp32"]


def test_nothing_reaches_the_screen_and_levels_of_loggers_come_back(capfd: pytest.CaptureFixture[str]) -> None:
    import logging

    logging.getLogger("torch.onnx").setLevel(logging.INFO)
    exported(Warns().eval())
    assert logging.getLogger("torch.onnx").level == logging.INFO
    assert capfd.readouterr() == ("", "")


def test_the_same_module_gives_the_same_bytes_again_and_in_another_process() -> None:
    code = (
        "import hashlib\n"
        "from tests import samples\n"
        "from tests.exporter.graph.roads import exported, with_weights\n"
        "{}\n"
        "module = samples.tiny_gpt()\n"
        "print(hashlib.sha256(with_weights(exported(module), module)).hexdigest())\n"
    )
    found = []
    for before, seed in (("", "1"), ("exported(samples.Buffers().eval()); exported(samples.tiny_gpt())", "2")):
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", code.format(before)]
        found.append(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)
    assert found[0] == found[1]


@pytest.mark.parametrize("context", [1, 2, 3, 24])
def test_example_sizes_are_never_alike_and_the_sequence_fits_the_context(context: int) -> None:
    sizes = distinct(example_sizes(context))
    assert sizes["batch_size"] >= 2
    assert sizes["batch_size"] != sizes["sequence_length"] <= context


@pytest.mark.parametrize("context", [1, 2])
def test_a_context_below_the_example_is_exported_too(context: int) -> None:
    module = samples.seeded(GPTModel(samples.TINY_CONFIG | {"context_length": context})).eval()
    signature = uncached(Head(width=samples.VOCAB))
    model = export_to_onnx(without_weights(module), signature, 18, example_sizes(context), "meta", context)
    shapes = [(batch, length) for batch in (1, 2, 5) for length in range(1, context + 1)]
    for found, shape in zip(logits_of(model, module, shapes), shapes, strict=True):
        assert np.abs(found - samples.eager_logits(module, samples.random_ids(*shape))).max() <= LIMITS["fp32"]


class WidensAtTheEnd(samples.Half):
    """Its last operator is one that changes name on the way to ONNX."""

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids).double().float()


def test_the_last_operator_may_be_one_that_is_lowered() -> None:
    module = samples.seeded(WidensAtTheEnd()).eval()
    (found,) = logits_of(exported(module), module, [(3, 5)])
    assert np.abs(found - samples.eager_logits(module, samples.random_ids(3, 5))).max() <= LIMITS["fp32"]
