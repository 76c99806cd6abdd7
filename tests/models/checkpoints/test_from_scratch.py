from __future__ import annotations

import json

import pytest
import torch
from gpt_export_models.checkpoints import read_checkpoint
from gpt_export_models.errors import CheckpointError, UnstatedError

from tests.models.checkpoints.oracles import LIMIT, check_complete, logits_of, off_by, seeded_ids, spread

book = pytest.importorskip(
    "llms_from_scratch.ch04", reason="the book's package is the oracle: pip install llms-from-scratch"
)

SIZES = {"vocab_size": 61, "context_length": 13, "emb_dim": 36, "n_heads": 3, "n_layers": 2, "drop_rate": 0.1}


def make(qkv_bias=False, **changes):
    return spread(book.GPTModel(SIZES | {"qkv_bias": qkv_bias} | changes))


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "book.json"
    path.write_text(json.dumps(SIZES | {"qkv_bias": False}))
    return path


@pytest.mark.parametrize("qkv_bias", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
def test_logits_are_the_books(tmp_path, qkv_bias, wrapped):
    model = make(qkv_bias)
    optimizer = torch.optim.AdamW(model.parameters())
    state = model.state_dict()
    torch.save({"model_state_dict": state, "optimizer_state_dict": optimizer.state_dict()} if wrapped else state,
               tmp_path / "a.bin")  # fmt: skip
    (tmp_path / "c.json").write_text(json.dumps(SIZES | {"qkv_bias": qkv_bias}))
    checkpoint = read_checkpoint(tmp_path / "a.bin", config_file=tmp_path / "c.json")
    check_complete(checkpoint)
    assert checkpoint.family == "from-scratch"
    assert checkpoint.config.to_dict() == SIZES | {"qkv_bias": qkv_bias}
    assert checkpoint.files == (tmp_path / "a.bin", tmp_path / "c.json")
    assert checkpoint.folder == tmp_path
    assert checkpoint.notes == ("2 attention mask buffers were ignored, they are no weights",)
    ids = seeded_ids(61)
    with torch.no_grad():
        assert off_by(logits_of(checkpoint, ids), model(ids)) < LIMIT


def test_heads_that_are_given_are_taken(tmp_path):
    model = make(emb_dim=192, n_heads=4)
    torch.save(model.state_dict(), tmp_path / "model.pth")
    checkpoint = read_checkpoint(tmp_path / "model.pth", heads=4)
    assert checkpoint.config.n_heads == 4
    ids = seeded_ids(61)
    with torch.no_grad():
        assert off_by(logits_of(checkpoint, ids), model(ids)) < LIMIT


def test_a_wrong_head_count_changes_the_logits(tmp_path, config_file):
    model = make()
    torch.save(model.state_dict(), tmp_path / "model.pth")
    config_file.write_text(json.dumps({"n_heads": 6}))
    ids = seeded_ids(61)
    with torch.no_grad():
        wrong = off_by(logits_of(read_checkpoint(tmp_path / "model.pth", config_file=config_file), ids), model(ids))
    assert wrong > 100 * LIMIT


def test_heads_that_nobody_states_are_asked_for(tmp_path):
    torch.save(make(emb_dim=64, n_heads=4).state_dict(), tmp_path / "model.pth")
    with pytest.raises(UnstatedError) as refused:
        read_checkpoint(tmp_path / "model.pth")
    assert refused.value.exit_code == 2
    assert str(refused.value) == (
        f"{tmp_path / 'model.pth'} does not say how many heads there are, and every number of heads is another model;"
        " pass the book's configuration as JSON with --config, or --heads with one of 1, 2, 4, 8, 16, 32, 64"
    )


def test_heads_that_do_not_fit_are_refused(tmp_path, config_file):
    torch.save(make().state_dict(), tmp_path / "model.pth")
    with pytest.raises(UnstatedError, match="a width of 36, which 5 heads do not divide"):
        read_checkpoint(tmp_path / "model.pth", heads=5)
    with pytest.raises(CheckpointError, match="n_heads is 3 in the configuration and 6 in --heads"):
        read_checkpoint(tmp_path / "model.pth", config_file=config_file, heads=6)


def test_a_shared_head_is_tied_and_an_equal_copy_is_not(tmp_path, config_file):
    model = make()
    model.out_head.weight = model.tok_emb.weight
    torch.save(model.state_dict(), tmp_path / "tied.pth")
    model.out_head.weight = torch.nn.Parameter(model.tok_emb.weight.detach().clone())
    torch.save(model.state_dict(), tmp_path / "copied.pth")
    tied = read_checkpoint(tmp_path / "tied.pth", config_file=config_file)
    copied = read_checkpoint(tmp_path / "copied.pth", config_file=config_file)
    assert (tied.config.tied_head, copied.config.tied_head) == (True, False)
    check_complete(tied)
    check_complete(copied)


def test_a_compiled_models_prefix_is_dropped(tmp_path, config_file):
    torch.save({f"_orig_mod.{name}": tensor for name, tensor in make().state_dict().items()}, tmp_path / "model.pth")
    check_complete(read_checkpoint(tmp_path / "model.pth", config_file=config_file))


def test_the_same_names_in_safetensors_are_read(tmp_path, config_file):
    safetensors = pytest.importorskip("safetensors.torch")
    model = make()
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("mask")}
    safetensors.save_file(state, tmp_path / "weights")
    checkpoint = read_checkpoint(tmp_path / "weights", config_file=config_file)
    assert all(torch.equal(checkpoint.tensors[name], tensor) for name, tensor in state.items())


def test_the_pickle_format_before_torch_1_6_is_read_and_said(tmp_path, config_file):
    model = make()
    torch.save(model.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    checkpoint = read_checkpoint(tmp_path / "old.pth", config_file=config_file)
    assert any("read into memory instead of being mapped" in note for note in checkpoint.notes)
    assert torch.equal(checkpoint.tensors["pos_emb.weight"], model.pos_emb.weight)


def test_everything_that_does_not_fit_is_listed_in_one_error(tmp_path, config_file, refusal):
    state = make().state_dict()
    del state["trf_blocks.0.norm1.scale"], state["trf_blocks.1.att.W_key.weight"]
    state["extra.weight"] = torch.ones(1)
    state["pos_emb.weight"] = torch.ones(13, 37)
    state["final_norm.shift"] = torch.ones(36, 1)
    state["final_norm.scale"] = torch.ones(36, dtype=torch.int64)
    state["trf_blocks.1.norm2.scale"] = 3
    config_file.write_text(json.dumps(SIZES | {"emb_dim": 48, "n_layers": 3, "qkv_bias": True}))
    text = refusal(tmp_path / _saved(state, tmp_path), config_file)
    assert f"emb_dim is 48 in {config_file} but 36 in the weights" in text
    assert f"n_layers is 3 in {config_file} but 2 in the weights" in text
    assert f"qkv_bias is True in {config_file} but False in the weights" in text
    assert "missing trf_blocks.1.att.W_key.weight, trf_blocks.0.norm1.scale;" in text
    assert "unexpected extra.weight;" in text
    assert "misshapen pos_emb.weight [13 x 37] instead of [13 x 36], final_norm.shift [36 x 1] instead of [36];" in text
    assert (
        "trf_blocks.1.norm2.scale (a int, not a tensor), final_norm.scale (torch.int64, torch.strided, on cpu)" in text
    )


def test_a_shape_off_by_one_is_one_line_even_in_the_embedding(tmp_path, config_file, refusal):
    state = make().state_dict()
    state["tok_emb.weight"] = torch.ones(61, 37)
    text = refusal(tmp_path / _saved(state, tmp_path), config_file)
    assert ": misshapen tok_emb.weight [61 x 37] instead of [61 x 36]; pass" in text


def test_a_long_list_is_cut_with_a_count(tmp_path, config_file, refusal):
    state = {name: tensor for name, tensor in make().state_dict().items() if "weight" not in name or "emb" in name}
    text = refusal(tmp_path / _saved(state, tmp_path), config_file)
    assert "missing trf_blocks.0.att.W_query.weight, " in text
    assert " and 5 more; pass" in text


def test_only_mask_buffers_are_ignored(tmp_path, config_file, refusal):
    state = make().state_dict() | {"trf_blocks.0.att.cache_k": torch.ones(1), "mask": torch.ones(1)}
    assert "unexpected trf_blocks.0.att.cache_k, mask;" in refusal(tmp_path / _saved(state, tmp_path), config_file)


def test_sparse_and_meta_tensors_are_refused(tmp_path, config_file, refusal):
    state = make().state_dict()
    state["out_head.weight"] = state["out_head.weight"].to_sparse()
    state["tok_emb.weight"] = state["tok_emb.weight"].to("meta")
    text = refusal(tmp_path / _saved(state, tmp_path), config_file)
    assert "tok_emb.weight (torch.float32, torch.strided, on meta)" in text
    assert "out_head.weight (torch.float32, torch.sparse_coo, on cpu)" in text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ('{"emb_dim": 36}', "lacks n_heads, which the weights do not tell; add it"),
        ('{"n_heads": 3, "n_kv_groups": 1}', "has keys that the book's configuration does not: n_kv_groups; known are"),
        ('{"n_heads": 5}', "do not describe a possible GPT: emb_dim 36 does not divide into"),
        ('{"n_heads": "3"}', "do not describe a possible GPT: n_heads must be a whole number of at least 1, not '3'"),
        ("[3]", "holds a JSON list, not an object"),
        ("n_heads: 3", "is not valid JSON (Expecting value"),
        ("[" * 100_000, "is not valid JSON (maximum recursion depth"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(tmp_path, config_file, refusal, given, said):
    config_file.write_text(given)
    assert said in refusal(tmp_path / _saved(make().state_dict(), tmp_path), config_file)


def test_a_configuration_that_is_not_there_is_said(tmp_path, refusal):
    text = refusal(tmp_path / _saved(make().state_dict(), tmp_path), tmp_path / "none.json")
    assert text == f"{tmp_path / 'none.json'} cannot be read: No such file or directory; check the path"


def _saved(state, folder):
    torch.save(state, folder / "model.pth")
    return "model.pth"


def lora(model, rank=3, alpha=5.0):
    """The book's model with its low-rank layers, their B drawn too."""
    appendix_e = pytest.importorskip("llms_from_scratch.appendix_e")
    appendix_e.replace_linear_with_lora(model, rank=rank, alpha=alpha)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora.B"):
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.mark.parametrize("qkv_bias", [False, True])
@pytest.mark.parametrize("stated", ["given", "beside", "config"])
def test_low_rank_layers_of_appendix_e_are_merged(tmp_path, qkv_bias, stated):
    model = lora(make(qkv_bias))
    saved = model.state_dict()
    said = {"given": {"lora_alpha": 5.0}, "beside": {}, "config": {}}[stated]
    torch.save({"model_state_dict": saved, "lora_alpha": 5.0} if stated == "beside" else saved, tmp_path / "l.pth")
    if stated == "config":
        (tmp_path / "c.json").write_text(json.dumps(SIZES | {"qkv_bias": qkv_bias, "lora_alpha": 5.0}))
        said = {"config_file": tmp_path / "c.json"}
    else:
        said = said | {"heads": 3}
    checkpoint = read_checkpoint(tmp_path / "l.pth", **said)
    check_complete(checkpoint)
    assert "13 low-rank layers were merged with alpha 5" in checkpoint.notes
    ids = seeded_ids(61)
    with torch.no_grad():
        assert off_by(logits_of(checkpoint, ids), model(ids)) < LIMIT
        other = read_checkpoint(tmp_path / "l.pth", heads=3, lora_alpha=1.0)  # the negative control
        assert off_by(logits_of(other, ids), model(ids)) > 100 * LIMIT


def test_low_rank_layers_without_alpha_or_half_of_them_are_refused(tmp_path):
    state = lora(make()).state_dict()
    torch.save(state, tmp_path / "l.pth")
    with pytest.raises(
        UnstatedError, match=r"does not say their alpha, .* pass the one of the training with --lora-alpha"
    ):
        read_checkpoint(tmp_path / "l.pth", heads=3)
    del state["trf_blocks.1.ff.layers.0.lora.B"]
    torch.save(state, tmp_path / "l.pth")
    with pytest.raises(
        CheckpointError, match=r"a low-rank layer trf_blocks.1.ff.layers.0 whose A, B and linear.weight do"
    ):
        read_checkpoint(tmp_path / "l.pth", heads=3, lora_alpha=1)
