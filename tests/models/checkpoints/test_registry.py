from __future__ import annotations

import pytest
import torch
from gpt_export_models.checkpoints import (
    Family,
    family_named,
    family_names,
    from_scratch,
    huggingface,
    nanogpt,
    register,
)
from gpt_export_models.errors import ConfigError

TOP_LEVELS = {
    "from-scratch": [
        {"tok_emb.weight": 0, "trf_blocks.0.att.W_key.weight": 0},
        {"model_state_dict": {"tok_emb.weight": 0}, "optimizer_state_dict": {}},
    ],
    "huggingface": [
        {"transformer.wte.weight": 0},
        {"wte.weight": 0},
        {"h.0.attn.c_attn.weight": 0, "lm_head.weight": 0},
    ],
    "nanogpt": [{"model": {"transformer.wte.weight": 0}}, {"model": {"_orig_mod.transformer.wte.weight": 0}}],
}


def test_the_three_families_are_known():
    assert family_names() == ("from-scratch", "huggingface", "nanogpt")
    assert [family_named(name) for name in family_names()] == [from_scratch.FAMILY, huggingface.FAMILY, nanogpt.FAMILY]


def test_a_duplicate_family_is_refused():
    again = Family(name="nanogpt", recognises=nanogpt.recognises, reads=nanogpt.reads)
    with pytest.raises(ConfigError, match="checkpoint family 'nanogpt' is registered already; choose another name"):
        register(again)
    assert family_named("nanogpt") is nanogpt.FAMILY


def test_an_unknown_family_is_answered_with_the_known_ones():
    with pytest.raises(
        ConfigError, match="no checkpoint family 'llama'; choose one of from-scratch, huggingface, nanogpt"
    ):
        family_named("llama")


def test_no_two_families_recognise_the_same_values():
    for owner, examples in TOP_LEVELS.items():
        for values in examples:
            assert [name for name in family_names() if family_named(name).recognises(values)] == [owner]


def test_a_file_of_no_family_is_answered_with_its_keys_and_the_known_families(tmp_path, refusal):
    torch.save({f"encoder.{i}.weight": torch.ones(1) for i in range(9)}, tmp_path / "tok_emb.pth")
    text = refusal(tmp_path / "tok_emb.pth")
    assert "holds no GPT of a known family but encoder.0.weight" in text
    assert "and 4 more; the known families are from-scratch, huggingface, nanogpt" in text


def test_an_empty_state_dict_is_of_no_family(tmp_path, refusal):
    torch.save({}, tmp_path / "model.pth")
    assert "holds no GPT of a known family but nothing;" in refusal(tmp_path / "model.pth")
