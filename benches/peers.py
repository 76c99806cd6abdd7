"""What `export_peers` runs beside us: an environment with Optimum, and checkpoints that transformers writes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CACHE = Path(__file__).parent / ".cache"
REQUIREMENTS = Path(__file__).with_name("peers-requirements.txt")
_LLAMA: Mapping[str, Any] = {
    "model_type": "llama",
    "vocab_size": 50257,
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1024,
    "bos_token_id": 50256,
    "eos_token_id": 50256,
}
"""A decoder with rotation, grouped heads and SwiGLU of GPT-2's width, depth and vocabulary."""
SIZES: Mapping[str, Mapping[str, Any]] = {
    "tiny": {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 1000, "n_positions": 128},
    "124m": {"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12},
    "355m": {"model_type": "gpt2", "n_embd": 1024, "n_layer": 24, "n_head": 16},
    "774m": {"model_type": "gpt2", "n_embd": 1280, "n_layer": 36, "n_head": 20},
    "1558m": {"model_type": "gpt2", "n_embd": 1600, "n_layer": 48, "n_head": 25},
    "llama-untied": {**_LLAMA, "tie_word_embeddings": False},
    "llama-tied": {**_LLAMA, "tie_word_embeddings": True},
}
"""By name the family of a model in transformers, and what its sizes change in the family's configuration."""
SHARD = "2GB"
"""transformers holds a shard twice while it writes it."""

_WRITE = """
import sys, json, torch
from transformers import AutoConfig, AutoModelForCausalLM
torch.manual_seed(123)
sizes, shard, folder = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**sizes))
model.save_pretrained(folder, max_shard_size=shard, safe_serialization=True)
"""
_VERSIONS = """
import json
from importlib.metadata import version
print(json.dumps({name: version(name) for name in ("accelerate", "optimum-onnx", "torch", "transformers")}))
"""


def peers_python(cache: Path = CACHE) -> Path:
    """The interpreter of the environment with Optimum and transformers, which is made if it is not there."""
    folder = cache / "peers"
    done = folder / "installed.txt"
    wanted = REQUIREMENTS.read_text(encoding="utf-8")
    python = folder / "bin" / "python"
    if not done.exists() or done.read_text(encoding="utf-8") != wanted:
        print("making the environment of the peers", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--requirement", REQUIREMENTS], check=True)
        done.write_text(wanted, encoding="utf-8")
    return python


def peer_versions(python: Path) -> dict[str, str]:
    """Versions of what decides the peers' figures."""

    found = subprocess.run([python, "-c", _VERSIONS], check=True, capture_output=True, text=True)
    versions: dict[str, str] = json.loads(found.stdout)
    return versions


def checkpoint(size: str, cache: Path = CACHE) -> Path:
    """The folder of a model of random weights as safetensors, which transformers writes if it is not there."""

    name = size if size.startswith(SIZES[size]["model_type"]) else f"{SIZES[size]['model_type']}-{size}"
    folder = cache / name
    if not (folder / "config.json").exists():
        print(f"writing a checkpoint of {size}", file=sys.stderr)
        draft = cache / f"{name}.draft"
        shutil.rmtree(draft, ignore_errors=True)
        python = peers_python(cache)
        subprocess.run([python, "-c", _WRITE, json.dumps(SIZES[size]), SHARD, draft], check=True)
        draft.rename(folder)
    return folder


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def describe(size: str) -> dict[str, Any]:
    """The family, and the sizes that differ from those of its configuration."""
    return dict(SIZES[size])
