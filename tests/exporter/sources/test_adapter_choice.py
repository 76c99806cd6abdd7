"""A folder with an adapter is the model that transformers with PEFT makes of it; what is meant must be said or told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpt_export
import numpy as np
import pytest
import torch
from gpt_export.errors import CheckpointError, SourceError
from gpt_export.sources.names import read_source

from tests.adapters import adapted, logits
from tests.conftest import Run
from tests.exporter.sources.test_transformers_folder import FAMILIES
from tests.samples import random_ids
from tests.tolerances import LIMITS

pytest.importorskip("peft", reason="peft is the oracle of adapters: pip install peft")

IDS = random_ids(2, 11, vocab=67)
TARGETS = {"gpt2": ["c_attn", "c_proj"], "llama": ["q_proj", "v_proj", "down_proj"], "neox": ["query_key_value"]}


def made(family: str, folder: Path, **settings: Any) -> tuple[Path, np.ndarray]:
    """Base and adapter in one folder, and the logits of PEFT's model."""
    torch.manual_seed(11)
    model = FAMILIES[family]().eval()
    model.save_pretrained(folder)
    wrapped = adapted(model, folder, target_modules=TARGETS[family], **settings)
    return folder, logits(wrapped, torch.from_numpy(IDS)).numpy()


def reference(source: Any) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(source.reference()(torch.from_numpy(IDS)))


def off(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / np.sqrt(np.square(wanted).mean()))


@pytest.mark.parametrize("settings", [{}, {"use_dora": True, "use_rslora": True}, {"modules_to_save": True}])
@pytest.mark.parametrize("family", TARGETS)
def test_the_adapter_beside_the_weights_is_in_the_artifact(
    family: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    if settings.get("modules_to_save"):
        settings = {"modules_to_save": ["embed_out" if family == "neox" else "lm_head"]}
    folder, wanted = made(family, tmp_path / "saved", **settings)
    artifact = gpt_export.export(folder, tmp_path / "artifact", profile="portable", cases=("grid",))
    assert off(gpt_export.Session.open(artifact.folder).logits(IDS), wanted) <= LIMITS["fp32"]
    assert "the adapter in saved was merged into the weights" in " ".join(artifact.manifest.model["notes"])
    assert artifact.manifest.source["adapter"] == "saved"


ROWS = {"embed_tokens": [3, 7]}
ENDS: dict[str, dict[str, Any]] = {
    "rows": {"trainable_token_indices": ROWS},
    "rows of both": {"trainable_token_indices": ROWS | {"lm_head": [3, 7]}},
    "other rows of both": {"trainable_token_indices": {"lm_head": [5]} | ROWS},
    "table saved": {"modules_to_save": ["embed_tokens"]},
    "head saved": {"modules_to_save": ["lm_head"]},
    "both saved": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "saved as tied": {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "low rank of the table": {"target_modules": ["embed_tokens", "q_proj"]},
    "low rank as tied": {"target_modules": ["embed_tokens", "q_proj"], "ensure_weight_tying": True},
    "low rank of the head": {"target_modules": ["lm_head", "q_proj"]},
}
OTHERS = {
    "opt": {"trainable_token_indices": ROWS},
    "neox": {"trainable_token_indices": {"embed_in": [3, 7]}, "target_modules": ["query_key_value"]},
    "gpt2 of another scale": {"trainable_token_indices": {"wte": [3, 7]}, "target_modules": ["c_attn"]},
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("family", "settings", "tie"),
    [
        *(pytest.param("llama", ENDS[ends], True, id=ends) for ends in ENDS),
        *(pytest.param("llama", ENDS[ends], False, id=f"{ends}, untied") for ends in ("rows", "other rows of both")),
        *(pytest.param(family, settings, True, id=family) for family, settings in OTHERS.items()),
    ],
)
def test_ends_are_tied_as_peft_has_them(family: str, settings: dict[str, Any], tie: bool, tmp_path: Path) -> None:
    torch.manual_seed(11)
    config = FAMILIES[family]().config
    config.tie_word_embeddings = tie
    model = pytest.importorskip("transformers").AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(tmp_path)
    plain = logits(model, torch.from_numpy(IDS)).numpy()
    wrapped = adapted(model, tmp_path, **{"target_modules": ["q_proj"]} | settings)
    wanted = logits(wrapped, torch.from_numpy(IDS)).numpy()
    assert off(reference(read_source(str(tmp_path))), wanted) <= LIMITS["fp32"]
    assert off(plain, wanted) > 100 * LIMITS["fp32"]  # the negative control


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_none_leaves_a_stale_adapter_away(family: str, tmp_path: Path) -> None:
    folder, wanted = made(family, tmp_path / "saved")
    source = read_source(str(folder), adapter="none")
    with torch.no_grad():
        plain = FAMILIES[family]
        torch.manual_seed(11)
        assert off(reference(source), plain().eval()(torch.from_numpy(IDS)).logits.numpy()) <= LIMITS["fp32"]
    assert off(reference(source), wanted) > 0.1
    assert "the adapter in saved was left away" in source.notes


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_an_adapter_alone_asks_for_its_base_and_is_merged_into_it(family: str, tmp_path: Path) -> None:
    folder, wanted = made(family, tmp_path / "adapter")
    torch.manual_seed(11)
    FAMILIES[family]().save_pretrained(tmp_path / "base")
    for name in ("model.safetensors", "config.json"):
        (folder / name).unlink()
    with pytest.raises(CheckpointError, match=r"holds an adapter alone \(peft_type LORA\); pass .* --base FOLDER"):
        read_source(str(folder))
    for source in (
        read_source(str(folder), base=tmp_path / "base"),
        read_source(str(tmp_path / "base"), adapter=folder),
    ):
        assert off(reference(source), wanted) <= LIMITS["fp32"]
        assert source.record["adapter"] == "adapter"


def test_an_adapter_beside_the_weights_of_a_class_of_ones_own_is_merged(
    user_module: Callable[[str], str], tmp_path: Path
) -> None:
    folder, wanted = made("gpt2", tmp_path / "saved")
    name = user_module(
        "from tests.exporter.sources.test_transformers_folder import FAMILIES\ndef make():\n    return "
        "FAMILIES['gpt2']()\n"
    )
    source = read_source(f"{name}:make", weights=folder)
    assert off(reference(source), wanted) <= LIMITS["fp32"]


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    folder, _ = made("gpt2", tmp_path / "saved")
    base = tmp_path / "base"
    FAMILIES["gpt2"]().save_pretrained(base)
    with pytest.raises(SourceError, match=r"--base is for an adapter, and .*base holds none"):
        read_source(str(base), base=folder)
    with pytest.raises(SourceError, match=r"--base says that .* is the adapter; leave --adapter"):
        read_source(str(folder), base=base, adapter="none")
    with pytest.raises(
        CheckpointError, match=r"base holds no adapter, there is no adapter_config.json; pass the folder"
    ):
        read_source(str(folder), adapter=base)
    with pytest.raises(SourceError, match="--adapter is for a checkpoint, and gpt2-124m is none"):
        read_source("gpt2-124m", adapter=folder)
    alone = read_source(str(folder / "model.safetensors"))
    assert "an adapter lies beside model.safetensors and was not merged; pass the folder for that" in alone.notes


def test_a_prefix_tuning_is_refused_by_its_name(cli: Callable[..., Run], tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = FAMILIES["gpt2"]().eval()
    model.save_pretrained(tmp_path)
    config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    peft.get_peft_model(model, config).save_pretrained(tmp_path)
    run = cli("onnx", str(tmp_path), "--output", str(tmp_path / "artifact"))
    run.refused(1, "peft_type 'PREFIX_TUNING', which is not implemented")
    assert not (tmp_path / "artifact").exists()
