"""A folder in which the commands of the docs work as written: small models where the docs have large ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from gpt_export.serving.packages import NEEDED
from gpt_export.sources import gpt
from gpt_export_models.config import GPTConfig
from gpt_export_models.gpt import GPTModel

from tests import samples
from tests.adapters import adapted
from tests.byte_gpt import CONFIG, byte_tokenizer
from tests.integration.checkpoints import nanogpt
from tests.trained_gpt import CALIBRATION, HELD_OUT

SMALL: dict[str, Any] = {"emb_dim": 16, "n_layers": 1, "n_heads": 2, "context_length": 24}
MY_MODEL = f"""
import torch


class GPT(torch.nn.Module):
    def __init__(self, config=None):
        super().__init__()
        self.config = config or {CONFIG!r}
        self.emb = torch.nn.Embedding(self.config["vocab_size"], 8)
        self.head = torch.nn.Linear(8, self.config["vocab_size"])

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.emb(ids))
"""


def shrink_known_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the seeded sizes of GPT-2 small; what they are called, and their vocabulary, stays."""
    monkeypatch.setattr(gpt, "GPT2_SIZES", dict.fromkeys(gpt.GPT2_SIZES, SMALL))


def stand_in_packages(folder: Path) -> Path:
    """A `node_modules` with files of the right names; nothing looks into them before a browser does."""
    for name in NEEDED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("", encoding="utf-8")
    return folder


def furnish(folder: Path, trained: Path) -> None:
    """Writes what the docs take for granted: checkpoints, a class of one's own, texts.

    Args:
        trained: the checkpoint of `tests.trained_gpt`.
    """
    model = samples.seeded(GPTModel(GPTConfig.from_dict(CONFIG)))
    torch.save(model.state_dict(), folder / "model.pth")
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    nanogpt(folder / "out")
    (folder / "my_model.py").write_text(MY_MODEL, encoding="utf-8")
    space: dict[str, Any] = {}
    exec(MY_MODEL, space)
    torch.save(samples.seeded(space["GPT"]()).state_dict(), folder / "ckpt.pt")
    for name, text in (("text.txt", CALIBRATION), ("train.txt", CALIBRATION), ("held-out.txt", HELD_OUT)):
        (folder / name).write_text(text, encoding="utf-8")
    furnish_corpora(folder)
    trained_folder(folder / "path" / "to" / "gpt2", trained)
    llama_folder(folder / "path" / "to" / "llama")


def furnish_corpora(folder: Path) -> None:
    """Texts, prompts and a table of texts, as docs/corpora.md names them."""
    import pyarrow
    from pyarrow import parquet

    (folder / "texts").mkdir()
    (folder / "texts" / "one.txt").write_text(HELD_OUT, encoding="utf-8")
    prompts = "".join(json.dumps({"prompt": text}) + "\n" for text in ("In the", "And he"))
    (folder / "in.jsonl").write_text(prompts, encoding="utf-8")
    parquet.write_table(pyarrow.table({"body": [HELD_OUT, HELD_OUT]}), folder / "corpus.parquet")


def trained_folder(folder: Path, trained: Path) -> Path:
    """The small trained GPT as a Hugging Face folder, its tokenizer in it and an adapter for it beside it."""
    transformers = pytest.importorskip("transformers", reason="it writes the folder: pip install 'gpt-export[hf]'")
    state = torch.load(trained, weights_only=True)
    shape = state["tok_emb.weight"].shape
    config = transformers.GPT2Config(
        vocab_size=shape[0], n_embd=shape[1], n_positions=64, n_layer=2, n_head=4, bos_token_id=256, eos_token_id=256
    )
    theirs = transformers.GPT2LMHeadModel(config)
    theirs.load_state_dict(_in_their_names(state), strict=False)
    theirs.save_pretrained(folder)
    adapted(theirs, folder.with_name("adapter"), target_modules=["c_attn"], fan_in_fan_out=True)
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def llama_folder(folder: Path) -> Path:
    """A small Llama of random weights, as transformers saves it."""
    transformers = pytest.importorskip("transformers", reason="it writes the folder: pip install 'gpt-export[hf]'")
    torch.manual_seed(11)
    config = transformers.LlamaConfig(
        vocab_size=67, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=24,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def _in_their_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The book's parameters by the names of Hugging Face's GPT-2, whose matrices are stored as (in, out)."""
    found = {
        "transformer.wte.weight": state["tok_emb.weight"],
        "transformer.wpe.weight": state["pos_emb.weight"],
        "transformer.ln_f.weight": state["final_norm.scale"],
        "transformer.ln_f.bias": state["final_norm.shift"],
    }
    for layer in range(2):
        mine, theirs = f"trf_blocks.{layer}.", f"transformer.h.{layer}."
        for name, other in (("norm1", "ln_1"), ("norm2", "ln_2")):
            found[f"{theirs}{other}.weight"] = state[f"{mine}{name}.scale"]
            found[f"{theirs}{other}.bias"] = state[f"{mine}{name}.shift"]
        for kind in ("weight", "bias"):
            joined = torch.cat([state[f"{mine}att.{name}.{kind}"] for name in ("W_query", "W_key", "W_value")])
            matrices = {
                "attn.c_attn": joined,
                "attn.c_proj": state[f"{mine}att.out_proj.{kind}"],
                "mlp.c_fc": state[f"{mine}ff.layers.0.{kind}"],
                "mlp.c_proj": state[f"{mine}ff.layers.2.{kind}"],
            }
            for name, matrix in matrices.items():
                found[f"{theirs}{name}.{kind}"] = matrix.T.contiguous() if kind == "weight" else matrix
    return found


def copy_of(place: Path, folder: Path) -> Path:
    """A fresh copy of a furnished folder."""
    return Path(shutil.copytree(place, folder, dirs_exist_ok=True))
