"""Adapters against transformers with PEFT itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from gpt_export_models.checkpoints import read_checkpoint
from gpt_export_models.checkpoints.adapters import read_adapter
from gpt_export_models.errors import CheckpointError

from tests.adapters import adapted, logits
from tests.models.checkpoints.oracles import LIMIT, check_complete, logits_of, off_by, seeded_ids
from tests.models.checkpoints.test_huggingface import make

pytest.importorskip("peft", reason="peft is the oracle of adapters: pip install peft")

LAYERS = ["c_attn", "c_proj", "c_fc"]
SETTINGS = {
    "one matrix": {"target_modules": ["c_attn"]},
    "every matrix": {"target_modules": LAYERS},
    "square matrices": {"target_modules": ["attn.c_proj"]},
    "rank-stabilised": {"target_modules": LAYERS, "use_rslora": True},
    "DoRA": {"target_modules": LAYERS, "use_dora": True},
    "DoRA, rank-stabilised": {"target_modules": ["c_fc"], "use_dora": True, "use_rslora": True},
    "patterns": {
        "target_modules": LAYERS,
        "rank_pattern": {"c_fc": 5, r"h\.1\.attn\.c_proj": 2},
        "alpha_pattern": {"mlp.c_proj": 11, r"^transformer\.h\.0\.attn\.c_attn": 1},
    },
    "some layers": {"target_modules": ["c_fc"], "layers_to_transform": [1]},
    "biases": {"target_modules": LAYERS, "bias": "all"},
    "biases of its layers": {"target_modules": ["c_fc"], "bias": "lora_only"},
    "a bias of its own": {"target_modules": ["c_fc"], "lora_bias": True},
    "norms saved": {"target_modules": ["c_attn"], "modules_to_save": ["ln_f", "ln_1"]},
    "head saved": {"target_modules": ["c_attn"], "modules_to_save": ["lm_head"]},
    "embedding saved": {"target_modules": ["c_attn"], "modules_to_save": ["wte"]},
    "both ends saved": {"target_modules": ["c_attn"], "modules_to_save": ["wte", "lm_head"]},
    "ends saved and tied": {"target_modules": ["c_attn"], "modules_to_save": ["wte"], "ensure_weight_tying": True},
    "embeddings": {"target_modules": ["wte", "wpe"]},
    "embeddings, DoRA": {"target_modules": ["wte"], "use_dora": True},
    "head": {"target_modules": ["lm_head"]},
    "tokens": {"target_modules": ["c_attn"], "trainable_token_indices": [3, 1]},
}


def folder_of(tmp_path: Path, tied: bool = True, **settings: object) -> tuple[Path, torch.nn.Module]:
    model = make(tie_word_embeddings=tied)
    model.save_pretrained(tmp_path)
    return tmp_path, adapted(model, tmp_path, **settings)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", SETTINGS)
def test_logits_are_those_of_peft(tmp_path, name, tied):
    folder, model = folder_of(tmp_path, tied, **SETTINGS[name])
    ids = seeded_ids(57)
    checkpoint = read_checkpoint(folder, adapter=folder)
    check_complete(checkpoint)
    assert off_by(logits_of(checkpoint, ids), logits(model, ids)) < LIMIT
    plain = read_checkpoint(folder)  # the negative control
    assert off_by(logits_of(plain, ids), logits(model, ids)) > 100 * LIMIT


@pytest.mark.parametrize("name", ["every matrix", "rank-stabilised", "DoRA", "patterns", "a bias of its own"])
def test_weights_are_those_of_merge_and_unload_bit_for_bit(tmp_path, name):
    folder, model = folder_of(tmp_path, **SETTINGS[name])
    read = read_checkpoint(folder, adapter=folder).tensors
    model.merge_and_unload().save_pretrained(tmp_path / "merged")
    merged = read_checkpoint(tmp_path / "merged").tensors
    assert all(torch.equal(read[key], merged[key]) for key in merged)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_weights_are_merged_in_float32(tmp_path, dtype):
    peft = pytest.importorskip("peft")
    folder, _ = folder_of(tmp_path, target_modules=["c_attn"])
    make().to(dtype).save_pretrained(folder)
    exact = make().to(dtype).float()
    model = peft.PeftModel.from_pretrained(exact, folder).eval()
    ids = seeded_ids(57)
    assert off_by(logits_of(read_checkpoint(folder, adapter=folder), ids), logits(model, ids)) < LIMIT


def test_pickled_adapters_and_bases_without_a_head_are_read(tmp_path):
    model = make()
    wrapped = adapted(model, tmp_path / "adapter", target_modules=LAYERS)
    from safetensors.torch import load_file

    file = tmp_path / "adapter" / "adapter_model.safetensors"
    torch.save(load_file(file), file.with_suffix(".bin"))
    file.unlink()
    wrapped.unload().transformer.save_pretrained(tmp_path / "body")
    ids = seeded_ids(57)
    expected = logits(pytest.importorskip("peft").PeftModel.from_pretrained(make(), tmp_path / "adapter").eval(), ids)
    read = read_checkpoint(tmp_path / "body", adapter=tmp_path / "adapter")
    assert off_by(logits_of(read, ids), expected) < LIMIT


def change(folder: Path, **settings: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"peft_type": "LOHA"}, "an adapter with peft_type 'LOHA', which is not implemented"),
        ({"peft_type": None}, "an adapter with peft_type None"),
        ({"use_qalora": True}, "what is not implemented: use_qalora True;"),
        ({"layer_replication": [[0, 1]]}, "what is not implemented: layer_replication"),
        ({"target_parameters": ["experts"]}, "what is not implemented: target_parameters"),
        ({"a_setting_of_tomorrow": 2}, "what is not implemented: a_setting_of_tomorrow 2;"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa', which changes the base"),
        ({"r": 4}, "says rank 4 for transformer.h.0.attn.c_attn, its matrices have 3"),
        ({"lora_alpha": "much"}, "has no lora_alpha that is a number"),
        ({"lora_alpha": float("inf")}, "has no lora_alpha that is a number"),
        ({"alpha_pattern": {"(a+)+": 2}}, "too involved to be tried"),
        ({"alpha_pattern": {"(": 2}}, "no regular expression"),
        ({"alpha_pattern": ["c_attn"]}, "has a alpha_pattern that is no object"),
        ({"use_dora": True}, "a DoRA adapter (use_dora) without the magnitudes of"),
    ],
)
def test_what_is_not_implemented_is_refused_by_name(tmp_path, settings, said):
    folder, _ = folder_of(tmp_path, target_modules=["c_attn"])
    change(folder, **settings)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(folder, adapter=folder)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_adapter_of_another_base_is_refused(tmp_path):
    adapted(make(n_embd=36), tmp_path / "adapter", target_modules=["c_attn"])
    make().save_pretrained(tmp_path / "base")
    with pytest.raises(
        CheckpointError,
        match=r"changes transformer.h.0.attn.c_attn by \[36, 108\], and the base \[33, 99\]|has \[33, 99\] there",
    ):
        read_checkpoint(tmp_path / "base", adapter=tmp_path / "adapter")
    adapted(make(n_layer=3), tmp_path / "tall", target_modules=["c_attn"])
    with pytest.raises(
        CheckpointError, match=r"changes transformer.h.2.attn.c_attn.weight, which its base does not have"
    ):
        read_checkpoint(tmp_path / "base", adapter=tmp_path / "tall")


def test_biases_of_an_adapter_without_the_bases_are_what_peft_does_not_merge_either(tmp_path):
    from gpt_export_models.checkpoints.merging import merge

    folder, model = folder_of(tmp_path, target_modules=["c_attn"], lora_bias=True)
    state = {name: t for name, t in make().state_dict().items() if not name.endswith("c_attn.bias")}
    with pytest.raises(CheckpointError, match=r"adds biases \(lora_bias\) where its base has none .* PEFT does not"):
        merge(state, read_adapter(folder), held_transposed=lambda _name: True)
    for part in model.modules():
        if hasattr(part, "base_layer"):
            part.base_layer.bias = None
    with pytest.raises(Exception, match="bias"):  # the oracle
        model.merge_and_unload()


def test_every_damage_of_an_adapters_files_is_a_sentence(tmp_path):
    folder, _ = folder_of(tmp_path, target_modules=["c_attn"], use_dora=True)
    config, file = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    whole = {path: path.read_bytes() for path in (config, file)}
    generator = torch.Generator().manual_seed(3)
    said = []
    for path, content in whole.items():
        for _ in range(40):
            at = int(torch.randint(len(content), (1,), generator=generator))
            bad = content[:at] if at % 2 else content[:at] + b"\xff" + content[at + 1 :]
            path.write_bytes(bad)
            try:
                read_checkpoint(folder, adapter=folder)
            except CheckpointError as error:
                said.append(str(error))
        path.write_bytes(content)
    assert len(said) > 40
    assert not any("\n" in text for text in said)
    assert read_adapter(folder).products
