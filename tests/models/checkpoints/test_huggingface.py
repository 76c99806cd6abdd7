from __future__ import annotations

import json

import pytest
import torch
from gpt_export_models.checkpoints import read_checkpoint
from gpt_export_models.checkpoints.huggingface import ACTIVATIONS

from tests.models.checkpoints.oracles import LIMIT, check_complete, logits_of, off_by, seeded_ids, spread

transformers = pytest.importorskip("transformers", reason="transformers is the oracle: pip install transformers")
safetensors = pytest.importorskip("safetensors.torch", reason="safetensors writes the files: pip install safetensors")

SIZES = {"vocab_size": 57, "n_positions": 14, "n_embd": 33, "n_layer": 2, "n_head": 3}


def make(kind="GPT2LMHeadModel", **changes):
    return spread(getattr(transformers, kind)(transformers.GPT2Config(**SIZES | changes)))


def save(folder, model=None, **settings):
    (model or make()).save_pretrained(folder)
    change_config(folder, **settings)
    return folder


def change_config(folder, **settings):
    config = json.loads((folder / "config.json").read_text()) | settings
    (folder / "config.json").write_text(json.dumps({name: value for name, value in config.items() if value is not ...}))


def library_logits(folder, ids):
    model = transformers.GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(ids).logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("n_inner", [None, 50])
def test_logits_are_the_librarys(tmp_path, dtype, tied, n_inner):
    save(tmp_path, make(tie_word_embeddings=tied, n_inner=n_inner, layer_norm_epsilon=1e-3).to(dtype))
    checkpoint = read_checkpoint(tmp_path)
    check_complete(checkpoint)
    assert checkpoint.family == "huggingface"
    assert checkpoint.config.tied_head == tied
    assert checkpoint.config.hidden_dim == n_inner
    assert {tensor.dtype for tensor in checkpoint.tensors.values()} == {dtype}
    assert checkpoint.files == (tmp_path / "model.safetensors", tmp_path / "config.json")
    assert checkpoint.notes == ()
    ids = seeded_ids(57)
    assert off_by(logits_of(checkpoint, ids), library_logits(tmp_path, ids)) < LIMIT


@pytest.mark.parametrize("prefix", [False, True])
@pytest.mark.parametrize("shards", ["safetensors", "bin"])
def test_shards_are_the_whole(tmp_path, prefix, shards):
    model = make("GPT2LMHeadModel" if prefix else "GPT2Model")
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    if shards == "bin":
        _turn_into_pickles(tmp_path)
    checkpoint = read_checkpoint(tmp_path)
    assert len(checkpoint.files) > 3
    check_complete(checkpoint)
    ids = seeded_ids(57)
    assert off_by(logits_of(checkpoint, ids), library_logits(tmp_path, ids)) < LIMIT


def _turn_into_pickles(folder):
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    for shard in set(index["weight_map"].values()):
        torch.save(safetensors.load_file(folder / shard), folder / shard.replace("safetensors", "bin"))
        (folder / shard).unlink()
    index["weight_map"] = {name: shard.replace("safetensors", "bin") for name, shard in index["weight_map"].items()}
    (folder / "model.safetensors.index.json").unlink()
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def test_a_pickled_state_dict_is_read_and_its_shared_head_is_tied(tmp_path):
    model = make()
    save(tmp_path, model)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    checkpoint = read_checkpoint(tmp_path)
    check_complete(checkpoint)
    assert checkpoint.config.tied_head
    ids = seeded_ids(57)
    assert off_by(logits_of(checkpoint, ids), library_logits(tmp_path, ids)) < LIMIT


def test_a_file_alone_is_recognised_by_its_content_and_uses_the_config_beside_it(tmp_path):
    save(tmp_path)
    whole = read_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "ckpt.pt")
    for path in (tmp_path / "ckpt.pt", tmp_path):
        renamed = read_checkpoint(path)
        assert renamed.config == whole.config
        assert all(torch.equal(renamed.tensors[name], tensor) for name, tensor in whole.tensors.items())


def test_another_config_can_be_given(tmp_path):
    save(tmp_path / "folder")
    (tmp_path / "folder" / "config.json").rename(tmp_path / "elsewhere.json")
    checkpoint = read_checkpoint(tmp_path / "folder", config_file=tmp_path / "elsewhere.json")
    assert checkpoint.files[-1] == tmp_path / "elsewhere.json"
    assert checkpoint.folder == tmp_path / "folder"


def test_old_mask_buffers_are_ignored_and_said(tmp_path):
    state = {name: tensor.contiguous() for name, tensor in make("GPT2Model").state_dict().items()}
    state |= {f"h.{i}.attn.bias": torch.ones(1, 1, 14, 14, dtype=torch.uint8) for i in range(2)}
    state |= {f"h.{i}.attn.masked_bias": torch.tensor(-1e4) for i in range(2)}
    save(tmp_path)
    safetensors.save_file(state, tmp_path / "model.safetensors")
    checkpoint = read_checkpoint(tmp_path)
    check_complete(checkpoint)
    assert checkpoint.notes == ("4 attention mask buffers were ignored, they are no weights",)


def test_a_tied_pair_may_be_stored_under_the_heads_name(tmp_path):
    model = make()
    save(tmp_path, model)
    whole = read_checkpoint(tmp_path)
    safetensors.save_model(model, str(tmp_path / "model.safetensors"))
    with safetensors.safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert "transformer.wte.weight" not in file.keys()  # noqa: SIM118
    checkpoint = read_checkpoint(tmp_path)
    check_complete(checkpoint)
    assert torch.equal(checkpoint.tensors["tok_emb.weight"], whole.tensors["tok_emb.weight"])


@pytest.mark.parametrize("same", [False, True])
def test_both_ends_stored_under_a_tying_config_are_tied_only_if_equal(tmp_path, same):
    model = make(tie_word_embeddings=False)
    if same:
        model.lm_head.weight.data.copy_(model.transformer.wte.weight)
    save(tmp_path, model, tie_word_embeddings=True)
    checkpoint = read_checkpoint(tmp_path)
    check_complete(checkpoint)
    assert checkpoint.config.tied_head == same
    assert ("the configuration ties head and embedding but the weights differ; both were taken as they are"
            in checkpoint.notes) != same  # fmt: skip
    ids = seeded_ids(57)
    assert off_by(logits_of(checkpoint, ids), library_logits(tmp_path, ids)) < LIMIT


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_the_librarys(tmp_path, name):
    save(tmp_path, activation_function=name)
    ids = seeded_ids(57)
    ours = logits_of(read_checkpoint(tmp_path), ids)
    assert off_by(ours, library_logits(tmp_path, ids)) < LIMIT
    change_config(tmp_path, activation_function="gelu" if ACTIVATIONS[name] == "gelu_tanh" else "gelu_new")
    assert off_by(ours, library_logits(tmp_path, ids)) > LIMIT


def test_an_untransposed_weight_changes_the_logits(tmp_path):
    save(tmp_path)
    checkpoint = read_checkpoint(tmp_path)
    name = "trf_blocks.0.att.out_proj.weight"
    ids = seeded_ids(57)
    right = logits_of(checkpoint, ids)
    checkpoint.tensors[name] = checkpoint.tensors[name].t()
    assert off_by(logits_of(checkpoint, ids), right) > 100 * LIMIT


def test_transposed_and_sliced_weights_are_views(tmp_path):
    tensors = read_checkpoint(save(tmp_path)).tensors
    query, key = tensors["trf_blocks.0.att.W_query.weight"], tensors["trf_blocks.0.att.W_key.weight"]
    assert query.stride() == (1, 99)
    assert key.data_ptr() - query.data_ptr() == 33 * 4
    assert tensors["trf_blocks.1.ff.layers.0.weight"].stride() == (1, 132)


def test_reordered_attention_is_ignored_and_said(tmp_path):
    checkpoint = read_checkpoint(save(tmp_path, reorder_and_upcast_attn=True))
    assert "reorder_and_upcast_attn was ignored" in checkpoint.notes[0]


def test_sizes_may_go_by_their_other_names(tmp_path):
    save(tmp_path, n_head=..., num_attention_heads=3, n_embd=..., hidden_size=33, model_type=...)
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.config.n_heads == 3
    assert "the configuration has no model_type" in checkpoint.notes[0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"scale_attn_by_inverse_layer_idx": True}, "not implemented: scale_attn_by_inverse_layer_idx True; export"),
        ({"scale_attn_weights": False}, "asks for what is not implemented: scale_attn_weights False;"),
        ({"add_cross_attention": True}, "asks for what is not implemented: add_cross_attention True;"),
        ({"quantization_config": {"bits": 4}}, "asks for what is not implemented: quantization_config {'bits': 4};"),
        ({"model_type": "gptj", "pruned_heads": {"0": [1]}}, "model_type 'gptj', pruned_heads {'0': [1]};"),
        ({"auto_map": {"AutoModelForCausalLM": "own.Model"}}, "not implemented: code of its own (auto_map);"),
        (
            {"activation_function": "relu"},
            "has activation_function 'relu', which is not implemented; known are gelu_new,",
        ),
        ({"activation_function": ["gelu"]}, "has activation_function ['gelu'], which is not implemented;"),
        ({"n_head": ..., "vocab_size": ...}, "config.json lacks vocab_size, n_head; it needs vocab_size, n_positions,"),
        ({"n_head": 4}, "do not describe a possible GPT: emb_dim 33 does not divide into"),
        ({"layer_norm_epsilon": None}, "do not describe a possible GPT: norm_eps must be a number"),
        (
            {"n_embd": 36, "n_layer": 3, "vocab_size": 58, "n_positions": 13, "n_inner": 50},
            "a whole GPT: vocab_size is 58 in config.json but 57 in the weights;"
            " n_positions is 13 in config.json but 14 in the weights;"
            " n_embd is 36 in config.json but 33 in the weights; n_layer is 3 in config.json but 2 in the weights;"
            " n_inner is 50 in config.json but 132 in the weights; pass",
        ),
        ({"tie_word_embeddings": False}, ": missing lm_head.weight; pass"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(tmp_path, refusal, settings, said):
    assert said in refusal(save(tmp_path, **settings))


def test_a_classifiers_head_is_unexpected(tmp_path, refusal):
    model = make("GPT2ForSequenceClassification", pad_token_id=0)
    assert "unexpected score.weight; pass" in refusal(save(tmp_path, model))


def test_a_fused_weight_off_by_one_is_one_line(tmp_path, refusal):
    save(tmp_path)
    state = safetensors.load_file(tmp_path / "model.safetensors")
    state["transformer.h.1.attn.c_attn.weight"] = torch.ones(33, 100)
    safetensors.save_file(state, tmp_path / "model.safetensors")
    said = ": misshapen transformer.h.1.attn.c_attn.weight [33 x 100] instead of [33 x 99]; pass"
    assert said in refusal(tmp_path)


def test_weights_without_a_config_ask_for_it(tmp_path, refusal):
    save(tmp_path)
    (tmp_path / "config.json").unlink()
    assert refusal(tmp_path / "model.safetensors") == (
        f"{tmp_path / 'model.safetensors'} is a GPT-2 of Hugging Face (layers of Conv1D) without a configuration,"
        f" there is no {tmp_path / 'config.json'}; put its config.json beside it, pass it with --config, or pass "
        "its head"
        " count with --heads"
    )


def test_the_head_count_alone_suffices_for_gpt2s_own_settings(tmp_path):
    save(tmp_path)
    ids = seeded_ids(57)
    wanted = library_logits(tmp_path, ids)
    (tmp_path / "config.json").unlink()
    checkpoint = read_checkpoint(tmp_path, heads=3)
    assert "there is no config.json; everything but the head count was taken as in GPT-2's" in checkpoint.notes
    assert off_by(logits_of(checkpoint, ids), wanted) < LIMIT


@pytest.mark.parametrize(
    ("text", "said"),
    [("{'n_head': 3}", "is not valid JSON (Expecting"), ("[]", "holds a JSON list, not"), ("", "is not valid JSON")],
)
def test_a_config_that_is_not_json_is_refused(tmp_path, refusal, text, said):
    save(tmp_path)
    (tmp_path / "config.json").write_text(text)
    assert said in refusal(tmp_path)
