"""What cannot be exported ends in one sentence and its exit code, and nothing is published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gpt_export
import pytest
import torch
from gpt_export.errors import ParityError, SourceError
from gpt_export.sources.source import Source, source_of_module
from torch import Tensor, nn
from torch.nn.attention.flex_attention import flex_attention

from tests import samples
from tests.conftest import Run
from tests.exporter.sources import modules

FACTORIES = """
import sys, torch
from tests.exporter.sources.modules import Plain
print("the module is imported")
class NeedsConfig(Plain):
    def __init__(self, config):
        super().__init__()
def raises():
    raise ValueError("no vocabulary file")
def leaves():
    sys.exit(4)
def to_cuda():
    return Plain().to("cuda:7")
def gives_a_tensor():
    return torch.ones(2)
class Talking(Plain):
    context_length = 8
    def forward(self, ids):
        print("run on", ids.shape)
        return super().logits(ids)
class Shorter(Plain):
    context_length = 64
    def __init__(self):
        super().__init__()
        self.places = torch.nn.Embedding(8, 8)
    def forward(self, ids):
        return self.head(self.emb(ids) + self.places(torch.arange(ids.shape[1])))
"""


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("NeedsConfig", ["needs arguments (config)", "--config"]),
        ("raises", ["ValueError: no vocabulary file", "line 9"]),
        ("leaves", ["SystemExit: 4"]),
        ("to_cuda", ["fails when it is called", "line 13"]),
        ("gives_a_tensor", ["gives a Tensor, not a torch.nn.Module"]),
        ("missing", ["has no attribute 'missing'"]),
        ("Shorter", ["fails on ids of shape", "index out of range", "context_length"]),
    ],
)
def test_a_factory_that_does_not_do_is_refused(
    factory: str, words: list[str], user_module: Callable[[str], str], cli: Callable[..., Run], tmp_path: Path
) -> None:
    run = cli("onnx", f"{user_module(FACTORIES)}:{factory}", "--output", tmp_path / "out")
    run.refused(2, *words)
    assert "unexpected" not in run.err
    assert not (tmp_path / "out").exists()


def test_what_the_users_code_prints_does_not_spoil_json(
    user_module: Callable[[str], str], cli: Callable[..., Run], tmp_path: Path
) -> None:
    run = cli("onnx", f"{user_module(FACTORIES)}:Talking", "--output", tmp_path / "out", "--json", "--road", "export")
    assert run.code == 0, run.err
    assert run.json()["artifact"] == str(tmp_path / "out")
    assert "the module is imported" in run.err


def source_of(module: torch.nn.Module) -> Source:
    record = {"kind": "module"}
    return source_of_module(samples.seeded(module).eval(), name="m", record=record, context_length=samples.CONTEXT)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (modules.Leaking, "the module is not causal: another last token changes the logits before it"),
        (modules.MixingRows, "the module mixes the rows of a batch: another second row changes the first one's"),
        (modules.Drawing, "the module gives other scores each time it is run on the same ids"),
    ],
)
def test_a_module_that_is_no_decoder_is_named_as_that(
    make: type[modules.Mixed], words: str, export_tiny: Callable[..., object], tmp_path: Path
) -> None:
    with pytest.raises(ParityError) as refused:
        export_tiny(samples.seeded(make()), tmp_path / "out")
    assert refused.value.exit_code == 3
    assert str(refused.value).startswith(words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("make", [modules.Plain, modules.Tagger, modules.LastKept])
def test_decoders_and_classifiers_are_not_accused(make: type[modules.Mixed]) -> None:
    """A tagger may read what stands behind a position: it is asked for classes, not for the next token."""
    from gpt_export.gate.reference import reference_faults

    source = source_of(make())
    found = reference_faults(source.reference(), samples.random_ids(1, 17), source.answers, source.vocab_size)
    assert found == ()


@pytest.mark.parametrize(("arguments", "words"), [(["--weights", "w.pt"], "--weights"), (["--heads", "2"], "--heads")])
def test_options_of_other_sources_are_refused(arguments: list[str], words: str, cli: Callable[..., Run]) -> None:
    cli("onnx", "dummy-124m", *arguments).refused(2, words)


def test_no_road_has_both_reasons(export_tiny: Callable[..., object]) -> None:
    from gpt_export.errors import GptExportError

    with pytest.raises(GptExportError) as refused:
        export_tiny(samples.seeded(samples.NoOperator()))
    message = str(refused.value)
    assert "by script" in message
    assert "torch.export" in message
    assert "bessel" in message


def _causal(score: Tensor, _batch: Tensor, _head: Tensor, row: Tensor, column: Tensor) -> Tensor:
    return torch.where(row < column, -torch.inf, score)


class Flexible(nn.Module):
    """Attends with flex_attention, which torch compiles while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(31, 16)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids)[:, None]
        return flex_attention(x, x, x, score_mod=_causal)[:, 0]


def test_flex_attention_is_named_with_what_to_call_instead(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"flex_attention has no ONNX form; call scaled_dot_.*test_bad"):
        gpt_export.export(Flexible().eval(), tmp_path / "artifact")
