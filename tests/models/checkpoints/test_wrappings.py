"""Every family behind every prefix and in every container gives the logits of its own code."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from gpt_export_models.checkpoints import read_checkpoint
from gpt_export_models.errors import CheckpointError, UnstatedError

from tests.models.checkpoints.nanogpt_oracle import ARGS, Reference
from tests.models.checkpoints.oracles import LIMIT, check_complete, logits_of, off_by, seeded_ids, spread
from tests.models.checkpoints.wrappings import CONTAINERS, FAMILIES, PREFIXES, ids_of, written


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_its_own_code_in_every_wrapping(family: str, tmp_path: Path) -> None:
    example = FAMILIES[family]()
    ids = ids_of(example)
    wanted = example.logits(ids)
    for i, container in enumerate(CONTAINERS):
        for j, prefix in enumerate(PREFIXES):
            path = written(tmp_path / f"{i}-{j}", example, prefix, container)
            checkpoint = read_checkpoint(path, **example.stated)
            check_complete(checkpoint)
            assert off_by(logits_of(checkpoint, ids), wanted) < LIMIT, (container, prefix)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "Hugging Face GPT-2"])
def test_nothing_but_the_head_count_is_asked_for(family: str, tmp_path: Path) -> None:
    path = written(tmp_path, FAMILIES[family](), "", "the dict alone")
    with pytest.raises(UnstatedError, match=r"does not say how many heads there are.* or --heads with one of 1, "):
        read_checkpoint(path)


def test_linear_layers_are_never_called_a_gpt2_of_hugging_face(tmp_path: Path) -> None:
    for family in ("build-nanogpt", "minGPT", "nanoGPT, `bias=False`"):
        for prefix in PREFIXES:
            path = written(tmp_path, FAMILIES[family](), prefix, "the dict alone")
            with pytest.raises(UnstatedError) as caught:
                read_checkpoint(path)
            assert "Hugging Face" not in str(caught.value)


class Settings:
    """Of a training loop; the class is not looked at when the file is read."""

    def __init__(self) -> None:
        self.n_head = 5
        self.learning_rate = 1e-3


def test_the_head_count_is_taken_from_a_pickled_configuration(tmp_path: Path) -> None:
    model = spread(Reference(ARGS | {"bias": True}, tanh=True))
    torch.save({"model": model.state_dict(), "config": Settings(), "step": 3}, tmp_path / "model_19072.pt")
    ids = seeded_ids(64)
    for heads in (None, 5):
        checkpoint = read_checkpoint(tmp_path / "model_19072.pt", heads=heads)
        with torch.no_grad():
            assert off_by(logits_of(checkpoint, ids), model(ids)) < LIMIT
    with pytest.raises(CheckpointError, match="n_heads is 5 in config and 7 in --heads; leave one of them out"):
        read_checkpoint(tmp_path / "model_19072.pt", heads=7)


def test_of_several_copies_the_trained_one_is_taken_and_said(tmp_path: Path) -> None:
    example = FAMILIES["nanoGPT, `bias=False`"]()
    path = written(tmp_path, example, "", "`model`, after its EMA")
    assert "the file has the model more than once; model was taken, not ema" in read_checkpoint(path, heads=5).notes
    state = example.module.state_dict()
    both = {f"ema_model.{n}": t * 0.5 for n, t in state.items()} | {f"online_model.{n}": t for n, t in state.items()}
    torch.save(both, path)
    checkpoint = read_checkpoint(path, heads=5)
    assert "the file has the model more than once; online_model. was taken, not ema_model." in checkpoint.notes
    ids = ids_of(example)
    assert off_by(logits_of(checkpoint, ids), example.logits(ids)) < LIMIT


def test_what_lies_beside_the_model_is_left_out_and_said(tmp_path: Path) -> None:
    example = FAMILIES["build-nanogpt"]()
    state = {f"model.{name}": tensor for name, tensor in example.module.state_dict().items()}
    torch.save({"state_dict": state | {"loss.weight": torch.ones(2)}}, tmp_path / "last.ckpt")
    notes = read_checkpoint(tmp_path / "last.ckpt", heads=5).notes
    assert "loss.weight of the file lie beside the model and were left out" in notes


def test_the_last_checkpoint_of_a_trainers_folder_is_taken_and_said(tmp_path: Path) -> None:
    example = FAMILIES["Hugging Face GPT-2"]()
    for step, factor in ((500, 0.5), (1000, 1.0), (90, 0.1)):
        folder = tmp_path / f"checkpoint-{step}"
        path = written(folder, example, "", "the dict alone")
        torch.save({name: factor * tensor for name, tensor in torch.load(path).items()}, folder / "pytorch_model.bin")
        path.unlink()
        torch.save({"state": {}}, folder / "optimizer.pt")
    torch.save({"lr": 1.0}, tmp_path / "training_args.bin")
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.folder == tmp_path / "checkpoint-1000"
    assert "of the trainer's folder checkpoint-1000 was taken, not checkpoint-90, checkpoint-500" in checkpoint.notes
    ids = ids_of(example)
    assert off_by(logits_of(checkpoint, ids), example.logits(ids)) < LIMIT


def test_a_last_checkpoint_without_weights_is_not_taken(tmp_path: Path) -> None:
    example = FAMILIES["Hugging Face GPT-2"]()
    written(tmp_path / "checkpoint-9", example, "", "the dict alone")
    (tmp_path / "checkpoint-100").mkdir()
    torch.save({"state": {}, "param_groups": []}, tmp_path / "checkpoint-100" / "optimizer.pt")
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.folder == tmp_path / "checkpoint-9"
    assert "checkpoint-100 of the trainer's folder came later and holds no weights" in checkpoint.notes


@pytest.mark.parametrize("names", [("generator.", "policy."), ("ema.", "swa.")])
def test_of_two_models_without_an_average_none_is_guessed(names: tuple[str, str], tmp_path: Path) -> None:
    example = FAMILIES["nanoGPT, `bias=False`"]()
    state = example.module.state_dict()
    both = {f"{names[0]}{n}": t * 0.5 for n, t in state.items()} | {f"{names[1]}{n}": t for n, t in state.items()}
    torch.save({"state_dict": both}, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match="has 2 models of other numbers") as refused:
        read_checkpoint(tmp_path / "x.ckpt", heads=5)
    assert all(f"state_dict: {name}" in str(refused.value) for name in names)
    assert "save the state dict of the one that is meant alone" in str(refused.value)
    same = {f"{name}{n}": t for name in names for n, t in state.items()}
    torch.save({"state_dict": same}, tmp_path / "x.ckpt")
    notes = read_checkpoint(tmp_path / "x.ckpt", heads=5).notes
    said = f"the file has the model more than once; state_dict: {names[0]} was taken, not state_dict: {names[1]}"
    assert said in notes


def test_files_that_are_no_whole_model_are_told_by_what_they_are(tmp_path: Path) -> None:
    example = FAMILIES["Hugging Face GPT-2"]()
    state = example.module.state_dict()
    torch.save({"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1.0}]}, tmp_path / "optimizer.pt")
    with pytest.raises(CheckpointError, match="is the state of an optimizer, not a model's; pass the weights beside"):
        read_checkpoint(tmp_path / "optimizer.pt")
    inner = tmp_path / "deepspeed" / "latest"
    inner.mkdir(parents=True)
    torch.save({"module": state, "ds_version": "0.14"}, inner / "mp_rank_00_model_states.pt")
    torch.save({"optimizer_state_dict": {}}, inner / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    with pytest.raises(CheckpointError, match=r"holds no weights itself but latest.mp_rank_00_model_states.pt; pass"):
        read_checkpoint(tmp_path / "deepspeed")
    example.beside(inner)
    assert read_checkpoint(inner).tensors


def test_one_shard_is_not_taken_for_the_model(tmp_path: Path) -> None:
    example = FAMILIES["Hugging Face GPT-2"]()
    example.module.save_pretrained(tmp_path, max_shard_size="9KB")
    shards = sorted(tmp_path.glob("*-of-*.safetensors"))
    assert len(shards) > 1
    with pytest.raises(CheckpointError, match=rf"is one shard of {len(shards)} .*; pass the folder"):
        read_checkpoint(shards[0])
    assert read_checkpoint(tmp_path).tensors
