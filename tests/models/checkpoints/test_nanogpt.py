from __future__ import annotations

import numpy as np
import pytest
import torch
from gpt_export_models.checkpoints import read_checkpoint
from torch import nn

from tests.models.checkpoints.nanogpt_oracle import ARGS, Reference, save
from tests.models.checkpoints.oracles import LIMIT, check_complete, logits_of, off_by, seeded_ids, spread


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ckpt.pt"


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
@pytest.mark.parametrize("masks", [False, True])
def test_logits_are_those_of_an_independent_model(path, bias, prefix, masks):
    args = ARGS | {"bias": bias}
    model = spread(Reference(args, masks=masks))
    save(path, model, args, prefix)
    checkpoint = read_checkpoint(path)
    check_complete(checkpoint)
    assert checkpoint.family == "nanogpt"
    assert checkpoint.config.tied_head
    assert checkpoint.config.activation == "gelu_erf"
    assert checkpoint.config.drop_rate == 0.2
    assert ("2 attention mask buffers were ignored, they are no weights" in checkpoint.notes) == masks
    ids = seeded_ids(64)
    with torch.no_grad():
        assert off_by(logits_of(checkpoint, ids), model(ids)) < LIMIT
        assert off_by(logits_of(checkpoint, ids), spread(Reference(args, tanh=True))(ids)) > LIMIT


def test_a_padded_vocabulary_is_kept(path):
    args = ARGS | {"vocab_size": 50304, "n_embd": 5, "n_layer": 1}
    save(path, Reference(args), args)
    assert read_checkpoint(path.parent).config.vocab_size == 50304


def test_a_checkpoint_from_before_the_bias_option_has_biases_and_the_tanh_gelu(path):
    args = {name: value for name, value in ARGS.items() if name != "bias"}
    model = spread(Reference(ARGS | {"bias": True}, tanh=True))
    save(path, model, args)
    checkpoint = read_checkpoint(path)
    assert "model_args has no bias, so this is a nanoGPT of before 2023" in checkpoint.notes[-1]
    ids = seeded_ids(64)
    with torch.no_grad():
        assert off_by(logits_of(checkpoint, ids), model(ids)) < LIMIT


def test_slices_of_fused_weights_are_views(path):
    save(path, spread(Reference(ARGS)), ARGS)
    tensors = read_checkpoint(path).tensors
    query, key, value = (tensors[f"trf_blocks.0.att.W_{part}.weight"] for part in ("query", "key", "value"))
    step = 35 * 35 * 4
    assert key.data_ptr() - query.data_ptr() == value.data_ptr() - key.data_ptr() == step


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"model_args": {"n_layer": 2, "bias": True}},
            "has model_args without n_head, n_embd, block_size, vocab_size;",
        ),
        ({"model_args": ARGS | {"use_rmsnorm": True}}, "has model_args that nanoGPT does not: use_rmsnorm;"),
        ({"model_args": ARGS | {"bias": 1}}, "has model_args with bias 1; it must be True or False"),
        ({"model_args": ARGS | {"n_head": 4}}, "possible GPT: emb_dim 35 does not divide into"),
        ({"model_args": ARGS | {"block_size": 13}}, ": block_size is 13 in model_args but 12 in the weights; pass"),
        ({"model_args": ARGS | {"vocab_size": None}}, ": vocab_size is None in model_args but 64 in the weights; pass"),
        ({"model_args": ARGS | {"bias": True}}, "missing transformer.h.0.ln_1.bias, transformer.h.1.ln_1.bias,"),
        ({"best_val_loss": np.float64(1.5)}, "holds a NumPy value (numpy"),
    ],
)
def test_what_does_not_fit_is_refused(path, refusal, changes, said):
    save(path, Reference(ARGS), ARGS, **changes)
    assert said in refusal(path)


def test_a_model_without_width_is_refused(path, refusal):
    args = ARGS | {"n_embd": 0}
    state = {name: torch.ones(_narrowed(tensor.shape)) for name, tensor in Reference(ARGS).state_dict().items()}
    torch.save({"model": state, "model_args": args}, path)
    assert "do not describe a possible GPT: emb_dim must be a whole number of at least 1, not 0" in refusal(path)


def _narrowed(shape):
    return tuple(0 if size % 35 == 0 else size for size in shape)


def test_a_head_that_is_not_the_embedding_is_refused(path, refusal):
    model = Reference(ARGS)
    model.lm_head.weight = nn.Parameter(torch.randn(64, 35))
    save(path, model, ARGS)
    assert "has an lm_head.weight that differs from transformer.wte.weight, which nanoGPT ties;" in refusal(path)


def test_a_configuration_file_beside_model_args_is_refused(path, refusal, tmp_path):
    save(path, Reference(ARGS), ARGS)
    assert "carries its own configuration (model_args); leave" in refusal(path, tmp_path / "config.json")
