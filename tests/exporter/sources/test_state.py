"""A checkpoint's weights in the user's own class: every container and prefix, and every name that does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gpt_export.artifact.manifest import FORMAT
from gpt_export.errors import CheckpointError, SourceError
from gpt_export.sources.factories import maker_of
from gpt_export.sources.names import read_source
from gpt_export.sources.state import loaded
from torch import nn

from tests.exporter.sources import modules
from tests.samples import CONTEXT, VOCAB, Tied, random_ids, seeded

SOURCE = f"""
from dataclasses import dataclass
import torch
from torch import nn

@dataclass
class Config:
    width: int = 8
    rows: int = {VOCAB}

class GPT(nn.Module):
    context_length = {CONTEXT}
    def __init__(self, config: Config):
        super().__init__()
        self.emb = nn.Embedding(config.rows, config.width)
        self.head = nn.Linear(config.width, config.rows)
        self.register_buffer("table", torch.linspace(0, 1, config.width), persistent=False)
    def forward(self, ids):
        return self.head(torch.tanh(self.emb(ids) + self.table))

class Loose(GPT):
    def __init__(self, cfg):
        nn.Module.__init__(self)
        self.emb = nn.Embedding(cfg["rows"], cfg.width)
        self.head = nn.Linear(cfg.width, cfg["rows"])
        self.table = torch.linspace(0, 1, cfg.width)

class Keywords(GPT):
    def __init__(self, *, width, rows):
        super().__init__(Config(width, rows))
"""

CONTAINERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "plain": lambda state: state,
    "model": lambda state: {"model": state, "iter_num": 3, "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}}},
    "state_dict": lambda state: {"epoch": 1, "state_dict": {f"model.{k}": v for k, v in state.items()}},
    "model_state_dict": lambda state: {"model_state_dict": state},
    "compiled": lambda state: {"model": {f"_orig_mod.{name}": value for name, value in state.items()}},
    "parallel": lambda state: {f"module.{name}": value for name, value in state.items()},
    "both": lambda state: {f"module._orig_mod.{name}": value for name, value in state.items()},
}


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in seeded(modules.Plain()).state_dict().items()}


@pytest.mark.parametrize("container", CONTAINERS)
def test_whatever_the_weights_lie_in_they_are_found(
    container: str, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.save(CONTAINERS[container](weights), tmp_path / "ckpt.pt")
    module, _ = loaded(modules.Plain, tmp_path / "ckpt.pt", 0)
    ids = torch.from_numpy(random_ids(2, 5))
    assert torch.equal(module(ids), seeded(modules.Plain())(ids))
    assert not module.training


def test_every_name_and_shape_that_does_not_fit_is_in_one_error(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    state = {**weights, "extra.weight": torch.zeros(2), "head.weight": torch.zeros(3, 8)}
    del state["head.bias"]
    torch.save(state, tmp_path / "ckpt.pt")
    with pytest.raises(CheckpointError) as refused:
        loaded(modules.Plain, tmp_path / "ckpt.pt", 0)
    message = str(refused.value)
    for words in ("missing head.bias", "unexpected extra.weight", "head.weight [3, 8] instead of [29, 8]"):
        assert words in message
    assert "\n" not in message


def test_tied_weights_stay_tied_and_different_ones_are_refused(tmp_path: Path) -> None:
    state = dict(seeded(Tied()).state_dict())
    torch.save({name: value for name, value in state.items() if name != "head.weight"}, tmp_path / "once.pt")
    module, _ = loaded(Tied, tmp_path / "once.pt", 0)
    assert module.head.weight is module.emb.weight
    torch.save(state | {"head.weight": state["head.weight"] + 1}, tmp_path / "twice.pt")
    with pytest.raises(CheckpointError, match=r"tied but different emb\.weight and head\.weight"):
        loaded(Tied, tmp_path / "twice.pt", 0)


@pytest.mark.parametrize("name", ["GPT", "Loose", "Keywords"])
def test_a_configuration_becomes_what_the_class_takes(
    name: str, user_module: Callable[[str], str], tmp_path: Path
) -> None:
    module = user_module(SOURCE)
    (tmp_path / "config.json").write_text(json.dumps({"width": 16, "rows": VOCAB}))
    make = maker_of(f"{module}:{name}", tmp_path / "config.json")
    torch.manual_seed(3)
    trained = make()
    torch.save(trained.state_dict(), tmp_path / "ckpt.pt")
    source = read_source(f"{module}:{name}", config_file=tmp_path / "config.json", weights=tmp_path / "ckpt.pt")
    ids = torch.from_numpy(random_ids(2, 5))
    with torch.no_grad():
        assert torch.equal(source.reference()(ids), trained(ids))  # tables that no file has are computed, not lost
    assert source.judged_against == f"your module {module}:{name} with the weights of ckpt.pt"


def test_weights_stay_mapped(tmp_path: Path) -> None:
    save = pytest.importorskip("safetensors.torch").save_file
    save({name: value.bfloat16() for name, value in seeded(modules.Plain()).state_dict().items()}, tmp_path / "w")
    module, _ = loaded(modules.Plain, tmp_path / "w", 0)
    assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}  # not widened, so not copied


def test_a_file_that_wants_to_run_code_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(CheckpointError, match="could run code"):
        loaded(modules.Plain, tmp_path / "module.pt", 0)


def test_the_tokenizer_beside_the_weights_is_the_modules(user_module: Callable[[str], str], tmp_path: Path) -> None:
    torch.save(modules.Plain().state_dict(), tmp_path / "ckpt.pt")
    (tmp_path / "vocab.txt").write_text("a\nb", encoding="utf-8")
    name = user_module("from tests.exporter.sources.modules import Plain\n")
    notes = read_source(f"{name}:Plain", weights=tmp_path / "ckpt.pt").notes
    assert any("is in vocab.txt, from which no tokenizer.json could be made; " in note for note in notes)


def test_of_two_models_behind_prefixes_none_is_guessed(tmp_path: Path) -> None:
    state = seeded(modules.Plain()).state_dict()
    older = {name: value * 0.5 for name, value in state.items()}
    for first, second in (("generator", "policy"), ("ema", "model")):
        both = {f"{first}.{n}": v for n, v in older.items()} | {f"{second}.{n}": v for n, v in state.items()}
        torch.save({"state_dict": both}, tmp_path / f"{first}.ckpt")
    with pytest.raises(CheckpointError, match=r"2 models of other numbers .*generator.*policy.* is meant alone"):
        loaded(modules.Plain, tmp_path / "generator.ckpt", 0)
    module, notes = loaded(modules.Plain, tmp_path / "ema.ckpt", 0)
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert "the file has the model more than once; state_dict: model. was taken, not state_dict: ema." in notes


def test_an_artifact_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"format": FORMAT}), encoding="utf-8")
    with pytest.raises(SourceError, match="is an artifact already; gpt-export quantize makes smaller files of it"):
        read_source(str(tmp_path))
