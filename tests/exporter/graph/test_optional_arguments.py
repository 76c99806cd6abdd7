"""Arguments that are None if they are left out script as their authors mean them, and can be saved."""

from pathlib import Path

import gpt_export
import pytest
import torch
from gpt_export.errors import ScriptError
from gpt_export.graph.script import script
from gpt_export.graph.torchscript import check_saves, load, save
from torch import nn

IDS = torch.arange(6).reshape(2, 3)


class Targets(nn.Module):
    """Scores and a loss where there are targets, as nanoGPT has it."""

    def __init__(self):  # type: ignore[no-untyped-def]
        super().__init__()
        self.block_size = 16
        self.table = nn.Embedding(31, 8)
        self.head = nn.Linear(8, 31)

    def forward(self, idx, targets=None):  # type: ignore[no-untyped-def]
        logits = self.head(self.table(idx))
        if targets is not None:
            loss = nn.functional.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))
        else:
            logits = logits[:, [-1], :]
            loss = None
        return logits, loss


class Masked(Targets):
    """An optional tensor that the scores depend on."""

    def forward(self, idx, attention_mask=None):  # type: ignore[no-untyped-def]
        x = self.table(idx)
        if attention_mask is not None:
            x = x * attention_mask.unsqueeze(-1)
        return self.head(x)


def test_the_branch_without_the_argument_is_taken(tmp_path: Path) -> None:
    module = Targets().eval()
    scripted = script(module)
    save(scripted, tmp_path / "model.pt")
    for one in (scripted, load(tmp_path / "model.pt")):
        logits, loss = one(IDS)
        assert loss is None
        assert torch.equal(logits, module(IDS)[0])
        assert torch.equal(one(IDS, IDS)[1], module(IDS, IDS)[1])


def test_a_tensor_that_may_be_left_out_counts_where_it_is_given() -> None:
    module = Masked().eval()
    scripted = script(module)
    check_saves(scripted)
    mask = torch.tensor([[1, 0, 1], [1, 1, 1]])
    assert torch.equal(scripted(IDS), module(IDS))
    assert torch.equal(scripted(IDS, attention_mask=mask), module(IDS, attention_mask=mask))


@pytest.mark.parametrize("kind", [Targets, Masked])
def test_such_a_module_is_exported_with_its_script(kind: type[Targets], tmp_path: Path) -> None:
    artifact = gpt_export.export(kind().eval(), tmp_path / "artifact")
    assert (artifact.folder / "torchscript" / "model.pt").exists()
    assert artifact.manifest.parity is not None
    assert artifact.manifest.parity["passed"]


def test_what_torch_scripts_and_cannot_save_is_no_matter_of_space(tmp_path: Path) -> None:
    unsaved = torch.jit.script(Masked())  # as torch itself takes it, the default an undefined tensor
    with pytest.raises(ScriptError, match=r"Masked scripts and cannot be saved: .*; write the types of its arguments"):
        save(unsaved, tmp_path / "model.pt")
    assert not list(tmp_path.iterdir())
