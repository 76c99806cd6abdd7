from __future__ import annotations

import itertools

import pytest
import torch
from gpt_export_models.checkpoints import expected_shapes
from gpt_export_models.config import GPTConfig
from gpt_export_models.gpt import GPTModel

SIZES = {"vocab_size": 29, "context_length": 11, "emb_dim": 15, "n_heads": 3, "n_layers": 2, "drop_rate": 0.1}


@pytest.mark.parametrize(
    ("qkv_bias", "linear_bias", "norm_bias", "tied_head"), [*itertools.product((False, True), repeat=4)]
)
def test_expected_shapes_are_those_of_the_model_in_its_order(qkv_bias, linear_bias, norm_bias, tied_head):
    config = GPTConfig(
        **SIZES, qkv_bias=qkv_bias, linear_bias=linear_bias, norm_bias=norm_bias, tied_head=tied_head, hidden_dim=7
    )
    with torch.device("meta"):
        state = GPTModel(config).state_dict()
    assert list(expected_shapes(config).items()) == [(name, tuple(tensor.shape)) for name, tensor in state.items()]
