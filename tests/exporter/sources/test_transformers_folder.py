"""Folders of Hugging Face: transformers' own model is what the artifact is compared with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpt_export
import numpy as np
import pytest
import torch
from gpt_export.errors import CheckpointError, SourceError
from gpt_export.sources import names, transformers_folder
from gpt_export.sources.names import read_source

from tests.samples import random_ids
from tests.tolerances import LIMITS

transformers = pytest.importorskip("transformers", reason="transformers is the oracle: pip install transformers")

SIZES: dict[str, Any] = {
    "vocab_size": 67,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 24,
}
GATED = SIZES | {"intermediate_size": 24, "num_key_value_heads": 2}
OPT = SIZES | {"ffn_dim": 24, "word_embed_proj_dim": 16}
SLIDING = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"], "head_dim": 8}
FAMILIES: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**GATED)),
    "qwen3": lambda: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**GATED, head_dim=8)),
    "gemma3": lambda: transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**GATED, **SLIDING)),
    "neox": lambda: transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**SIZES, intermediate_size=24)),
    "opt": lambda: transformers.OPTForCausalLM(transformers.OPTConfig(**OPT)),
    "mixtral": lambda: transformers.MixtralForCausalLM(transformers.MixtralConfig(**GATED, num_local_experts=3)),
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=67, n_embd=16, n_layer=2, n_head=4, n_positions=24)
    ),
    "gpt2 of another scale": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=67, n_embd=16, n_layer=2, n_head=4, n_positions=24, scale_attn_by_inverse_layer_idx=True
        )
    ),
}


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., tuple[Path, Any]]:
    """Saves a model of a family with seeded weights; gives the folder and the model."""

    def save(family: str, **how: Any) -> tuple[Path, Any]:
        torch.manual_seed(11)
        model = FAMILIES[family]().eval()
        model.save_pretrained(tmp_path / "saved", **how)
        return tmp_path / "saved", model

    return save


@pytest.mark.parametrize("family", FAMILIES)
def test_an_exported_folder_is_transformers_own_model(
    family: str, saved: Callable[..., tuple[Path, Any]], tmp_path: Path
) -> None:
    folder, model = saved(family)
    artifact = gpt_export.export(folder, tmp_path / "artifact", profile="portable", cases=("grid",))
    ids = random_ids(2, 11, vocab=67)
    with torch.no_grad():
        wanted = model(torch.from_numpy(ids)).logits.numpy()
    found = gpt_export.Session.open(artifact.folder).logits(ids)
    assert float(np.abs(found - wanted).max() / np.sqrt(np.square(wanted).mean())) <= LIMITS["fp32"]
    judge = artifact.manifest.model["judged_against"]
    if family == "gpt2":
        assert judge.startswith("our reading of a Hugging Face GPT-2 checkpoint")
    else:
        assert judge == f"transformers {transformers.__version__}'s {type(model).__name__}"


def test_shards_and_16_bits_are_read_and_stay_as_they_are(saved: Callable[..., tuple[Path, Any]]) -> None:
    folder, model = saved("llama", max_shard_size="3KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    assert torch.equal(read_source(str(folder)).weights["lm_head.weight"], model.lm_head.weight)
    model.bfloat16().save_pretrained(folder.parent / "half")
    source = read_source(str(folder.parent / "half"))
    assert source.weights["lm_head.weight"].dtype == torch.bfloat16
    assert {parameter.dtype for parameter in source.reference().parameters()} == {torch.float32}


def edited(folder: Path, **values: Any) -> str:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return str(folder)


def test_code_of_a_folder_is_never_run(saved: Callable[..., tuple[Path, Any]], tmp_path: Path) -> None:
    folder, _ = saved("llama")
    (folder / "modeling_mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    where = edited(folder, auto_map={"AutoModelForCausalLM": "modeling_mine.Model"})
    with pytest.raises(CheckpointError, match=r"code of its own \(auto_map.*never run"):
        read_source(where)
    assert not (tmp_path / "ran").exists()


def test_quantised_folders_and_unknown_types_are_refused(saved: Callable[..., tuple[Path, Any]]) -> None:
    folder, _ = saved("llama")
    with pytest.raises(CheckpointError, match=r"does not read .* as a causal decoder"):
        read_source(edited(folder, model_type="nobody-knows-it"))
    with pytest.raises(CheckpointError, match="holds quantised weights"):
        read_source(edited(folder, model_type="llama", quantization_config={"bits": 4}))


def test_a_folder_without_all_of_its_weights_is_refused(saved: Callable[..., tuple[Path, Any]]) -> None:
    from safetensors.torch import load_file, save_file

    folder, _ = saved("llama")
    state = load_file(folder / "model.safetensors")
    del state["model.norm.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"missing model\.norm\.weight"):
        read_source(str(folder))


def test_without_transformers_one_sentence_says_what_to_install(
    saved: Callable[..., tuple[Path, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = saved("llama")
    for place in (names, transformers_folder):
        monkeypatch.setattr(place, "has_transformers", lambda: False)
    with pytest.raises(SourceError, match=r"is a llama of Hugging Face.*gpt-export\[hf\]"):
        read_source(str(folder))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("container", [None, "model_state_dict", "state_dict"])
@pytest.mark.parametrize("family", ["llama", "neox", "gemma3"])
def test_wrapped_weights_of_any_architecture_are_read(
    family: str, container: str | None, prefix: str, saved: Callable[..., tuple[Path, Any]]
) -> None:
    folder, model = saved(family)
    (folder / "model.safetensors").unlink()
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    everything = state if container is None else {container: state, "ema": {n: t * 0 for n, t in state.items()}}
    torch.save(everything, folder / "pytorch_model.bin")
    source = read_source(str(folder))
    ids = torch.from_numpy(random_ids(2, 11, vocab=67))
    with torch.no_grad():
        torch.testing.assert_close(source.reference()(ids), model(ids).logits, atol=1e-5, rtol=1e-5)
    taken = [note for note in source.notes if "more than once" in note]
    assert taken == (
        [] if container is None else [f"the file has the model more than once; {container} was taken, not ema"]
    )
