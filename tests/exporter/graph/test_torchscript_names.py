"""The bytes of model.pt depend on the module, not on what the process has compiled before."""

from pathlib import Path

import torch
from gpt_export.graph.script import script
from gpt_export.graph.torchscript import load, save
from gpt_export_models.gpt import GPTModel
from torch import Tensor, nn

CONFIG = {
    "vocab_size": 31,
    "context_length": 8,
    "emb_dim": 12,
    "n_heads": 3,
    "n_layers": 2,
    "drop_rate": 0.1,
    "qkv_bias": True,
}


def saved(folder: Path, name: str) -> tuple[str, Tensor, Tensor]:
    torch.manual_seed(0)
    module = GPTModel(CONFIG).eval()
    ids = torch.arange(6).reshape(2, 3)
    digest = save(script(module), folder / name)
    return digest, load(folder / name)(ids), module(ids)


def test_compiling_other_modules_first_changes_no_byte(tmp_path: Path) -> None:
    torch.jit._recursive.concrete_type_store = torch.jit._recursive.ConcreteTypeStore()
    first, *_ = saved(tmp_path, "first.pt")
    torch.jit._recursive.concrete_type_store = torch.jit._recursive.ConcreteTypeStore()
    script(nn.Sequential(nn.Embedding(3, 4), nn.Embedding(5, 4), nn.Linear(4, 3), nn.Dropout(0.3), nn.GELU()))
    second, *_ = saved(tmp_path, "second.pt")
    assert first == second


def test_renamed_classes_load_and_give_the_modules_logits(tmp_path: Path) -> None:
    _, found, expected = saved(tmp_path, "model.pt")
    assert torch.equal(found, expected)


def test_classes_of_one_name_and_other_sizes_stay_apart(tmp_path: Path) -> None:
    module = nn.Sequential(*[nn.Linear(3, 3, bias=bias) for bias in (True, False, True)]).eval()
    save(script(module), tmp_path / "model.pt")
    x = torch.ones(1, 3)
    assert torch.equal(load(tmp_path / "model.pt")(x), module(x))
