from __future__ import annotations

import re

import pytest
import torch
from gpt_export_models.checkpoints import (
    Family,
    family_named,
    family_names,
    from_scratch,
    huggingface,
    mingpt,
    nanogpt,
    register,
)
from gpt_export_models.checkpoints.containers import find_state
from gpt_export_models.errors import ConfigError

WIDE, TALL = torch.ones(2, 6), torch.ones(6, 2)
STATES = {
    "from-scratch": [{"tok_emb.weight": TALL}, {"trf_blocks.0.att.W_key.weight": TALL, "tok_emb.weight": TALL}],
    "huggingface": [
        {"transformer.wte.weight": TALL},
        {"h.0.attn.c_attn.weight": WIDE, "lm_head.weight": TALL},
        {"transformer.h.0.mlp.c_fc.weight": WIDE},
    ],
    "mingpt": [{"tok_emb.weight": TALL, "blocks.0.attn.query.weight": TALL}],
    "nanogpt": [{"transformer.h.0.attn.c_attn.weight": TALL}, {"h.3.mlp.c_fc.weight": TALL}],
}
NAMES = tuple(STATES)


def test_the_families_are_known():
    assert family_names() == NAMES
    assert [family_named(name) for name in family_names()] == [
        from_scratch.FAMILY,
        huggingface.FAMILY,
        mingpt.FAMILY,
        nanogpt.FAMILY,
    ]


def test_a_duplicate_family_is_refused():
    again = Family(name="nanogpt", landmark=re.compile("x"), recognises=nanogpt.recognises, reads=nanogpt.reads)
    with pytest.raises(ConfigError, match="checkpoint family 'nanogpt' is registered already; choose another name"):
        register(again)
    assert family_named("nanogpt") is nanogpt.FAMILY


def test_an_unknown_family_is_answered_with_the_known_ones():
    with pytest.raises(
        ConfigError, match="no checkpoint family 'llama'; choose one of from-scratch, huggingface, mingpt, nanogpt"
    ):
        family_named("llama")


def test_no_two_families_recognise_the_same_values():
    for owner, examples in STATES.items():
        for state in examples:
            found = [
                name
                for name in family_names()
                if find_state(state, family_named(name).landmark) and family_named(name).recognises(state, {})
            ]
            assert found == [owner]


def test_a_file_of_no_family_is_answered_with_its_keys_and_the_way_that_exists(tmp_path, refusal):
    torch.save({f"encoder.{i}.weight": torch.ones(1) for i in range(9)}, tmp_path / "tok_emb.pth")
    text = refusal(tmp_path / "tok_emb.pth")
    assert "holds no GPT of a known family (from-scratch, huggingface, mingpt, nanogpt) but encoder.0.weight" in text
    assert "and 4 more; export it through its own class: gpt-export onnx package.module:factory --weights" in text


def test_an_empty_state_dict_is_of_no_family(tmp_path, refusal):
    torch.save({}, tmp_path / "model.pth")
    assert "holds nothing; save model.state_dict() with torch.save" in refusal(tmp_path / "model.pth")
