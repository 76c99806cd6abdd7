"""Files that exporters write: ours have no error, others have the ones that they are known for."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from gpt_export.artifact.reading import Artifact
from gpt_export.linting.finding import Severity
from gpt_export.linting.run import lint_path
from gpt_export.linting.settings import CONSUMERS, LintSettings
from gpt_export.pipeline.config import ExportConfig, Profile
from gpt_export.pipeline.stages import export
from gpt_export.sources.gpt import checkpoint_source
from gpt_export.sources.source import Source
from gpt_export_models.gpt import GPTModel
from torch import Tensor, nn

from tests import samples
from tests.exporter.linting.graphs import codes, findings

TARGET = LintSettings(target_ort="1.17")


def decoder_source(config: Mapping[str, Any], folder: Path) -> Source:
    """Our decoder, from a checkpoint of the book's code with seeded weights."""
    folder.mkdir()
    torch.save(samples.seeded(GPTModel(config), spread=0.1).state_dict(), folder / "model.pth")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return checkpoint_source(folder / "model.pth", config_file=folder / "config.json")


@pytest.mark.parametrize("opset", [17, 18, 20])
def test_our_skeleton_has_no_errors(export_tiny: Callable[..., Artifact], opset: int) -> None:
    report = lint_path(export_tiny(samples.tiny_dummy(), opset=opset).folder, TARGET)
    assert report.exit_code == 0
    assert {each.severity for each in report.findings} <= {Severity.NOTE}


@pytest.mark.parametrize(("profile", "oldest"), [("portable", "1.17"), ("ort", "1.23")])
@pytest.mark.parametrize("consumer", CONSUMERS)
@pytest.mark.parametrize("size", ["tiny", "external"])
def test_our_cached_decoder_has_no_findings_for_any_consumer(
    tmp_path: Path, consumer: str, size: str, profile: Profile, oldest: str
) -> None:
    larger = {"emb_dim": 128, "vocab_size": 32_768} if size == "external" else {"n_heads": 1}
    source = decoder_source(samples.TINY_CONFIG | larger, tmp_path / "checkpoint")
    artifact = export(source, ExportConfig(gate="off", profile=profile), tmp_path / "out" / "tiny")
    assert (artifact.folder / "onnx" / "model.onnx_data").exists() == (size == "external")
    report = lint_path(artifact.folder, LintSettings(consumers=(consumer,), target_ort=oldest))
    assert report.findings == ()


def test_our_artifact_records_an_onnxruntime_that_loads_it(export_tiny: Callable[..., Artifact]) -> None:
    artifact = export_tiny(samples.tiny_dummy())
    recorded = artifact.manifest.variants["fp32"]["minimum_onnxruntime"]
    assert lint_path(artifact.folder, LintSettings(target_ort=recorded)).exit_code == 0


class Ids(nn.Module):
    """Ids to logits of a transformers model, without what TorchScript export cannot take."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.model(ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        return logits


@pytest.fixture(scope="module")
def gpt2() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=32, vocab_size=61, n_positions=64)
    torch.manual_seed(0)
    return Ids(transformers.GPT2LMHeadModel(config)).eval()


def traced(module: nn.Module, path: Path, **settings: object) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ids = torch.zeros((2, 8), dtype=torch.int64)
        torch.onnx.export(module, (ids,), str(path), dynamo=False, opset_version=18, **settings)  # type: ignore[arg-type]
    return path


def test_a_traced_transformers_model_has_what_tracing_does(tmp_path: Path, gpt2: nn.Module) -> None:
    path = traced(gpt2, tmp_path / "gpt2.onnx")
    found = findings(path)
    errors = {each.code for each in found if each.severity is Severity.ERROR}
    assert errors == {"GX101", "GX102"}  # the example's batch and length
    assert "GX122" in {each.code for each in found}  # the head was folded into a transposed copy of the embedding
    assert {"GX401", "GX413", "GX421", "GX431"} <= {each.code for each in found if each.severity is Severity.NOTE}


def test_with_dynamic_axes_and_names_the_errors_are_gone(tmp_path: Path, gpt2: nn.Module) -> None:
    axes = {0: "batch_size", 1: "sequence_length"}
    names = {"input_names": ["input_ids"], "output_names": ["logits"]}
    path = traced(gpt2, tmp_path / "gpt2.onnx", dynamic_axes={"input_ids": axes, "logits": axes}, **names)
    assert not codes(path) & {"GX101", "GX102", "GX401", "GX413", "GX421", "GX431"}


def test_a_model_exported_in_training_mode_is_found(tmp_path: Path, gpt2: nn.Module) -> None:
    path = traced(gpt2, tmp_path / "gpt2.onnx", training=torch.onnx.TrainingMode.TRAINING, do_constant_folding=False)
    assert "GX131" in codes(path)


def test_the_stored_mask_of_the_books_attention_is_found(tmp_path: Path) -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.emb, self.head = nn.Embedding(61, 8), nn.Linear(8, 61)
            self.register_buffer("mask", torch.triu(torch.ones(64, 64), diagonal=1))

        def forward(self, ids: Tensor) -> Tensor:
            x = self.emb(ids)
            count = ids.shape[1]
            scores = (x @ x.transpose(1, 2)).masked_fill(self.mask[:count, :count] == 1, -torch.inf)
            logits: Tensor = self.head(scores.softmax(-1) @ x)
            return logits

    axes = {0: "batch_size", 1: "sequence_length"}
    names = {"input_names": ["input_ids"], "output_names": ["logits"]}
    path = traced(
        Masked().eval(),
        tmp_path / "masked.onnx",
        dynamic_axes={"input_ids": axes, "logits": axes},
        do_constant_folding=False,
        **names,
    )
    assert "GX111" in codes(path)
    assert onnx.load(path).graph.node


def test_weights_left_as_torch_has_them_are_found(tmp_path: Path, gpt2: nn.Module) -> None:
    path = traced(gpt2, tmp_path / "gpt2.onnx", do_constant_folding=False, keep_initializers_as_inputs=True)
    assert {"GX502", "GX521"} <= codes(path)
