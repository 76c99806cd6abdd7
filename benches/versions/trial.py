"""Run by the interpreter of a trial: a model exported, judged and run with what is installed there.

Prints one JSON value: the versions, and for each part `{"outcome": "passed"}` or the sentence that it failed with.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpt_export.runtime import Session
from transformers import GPT2Config, GPT2LMHeadModel

LIBRARIES = ("torch", "onnxruntime", "onnx", "numpy", "transformers", "onnx-ir", "onnxscript", "tokenizers")
PROMPT = [[3, 14, 15, 9, 26, 5]]
NEW_TOKENS = 12
# Of logits whose root mean square is near 1, in float32.
ALLOWED = 1e-4


def main() -> None:
    parts: dict[str, Callable[[Path, GPT2LMHeadModel], dict[str, Any]]] = {
        "portable": portable,
        "ort": fused,
        "quantised": quantised,
        "module": module,
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = checkpoint(folder / "gpt2")
        found = {}
        for name, run in parts.items():
            try:
                found[name] = {"outcome": "passed"} | run(folder, model)
            except Exception as error:  # whatever a release may do is what is asked
                found[name] = {"outcome": f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"}
    print(json.dumps({"versions": {name: version(name) for name in LIBRARIES}, "parts": found}))


def checkpoint(folder: Path) -> GPT2LMHeadModel:
    """A small GPT-2 of transformers, saved as a folder."""
    torch.manual_seed(11)
    config = GPT2Config(vocab_size=97, n_positions=48, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    model = GPT2LMHeadModel(config).eval()
    for parameter in model.parameters():  # larger than they are drawn, so that a wrong one shows
        parameter.data.mul_(5.0 if parameter.ndim > 1 else 1.0)
    model.save_pretrained(folder)
    return model


def portable(folder: Path, model: GPT2LMHeadModel) -> dict[str, Any]:
    """Standard operators, and TorchScript."""
    return exported(folder, model, "--profile", "portable", "--torchscript")


def fused(folder: Path, model: GPT2LMHeadModel) -> dict[str, Any]:
    """onnxruntime's own operators."""
    return exported(folder, model, "--profile", "ort")


def quantised(folder: Path, model: GPT2LMHeadModel) -> dict[str, Any]:
    """8 bits, whose gate compares and reads every matrix back; its tokens need not be the model's."""
    command("onnx", folder / "gpt2", "--output", folder / "int8", "--precision", "int8", "--gate", "report")
    logits = Session.open(folder / "int8", variant="int8").logits(PROMPT)
    return {"largest_difference": difference(logits, model)}


def module(folder: Path, _model: GPT2LMHeadModel) -> dict[str, Any]:
    """A module of the user's, by name."""
    (folder / "mine.py").write_text(
        "import torch\n"
        "class Mine(torch.nn.Module):\n"
        "    context_length = 12\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.emb = torch.nn.Embedding(29, 8)\n"
        "        self.head = torch.nn.Linear(8, 29)\n"
        "    def forward(self, ids: torch.Tensor) -> torch.Tensor:\n"
        "        return self.head(torch.nn.functional.gelu(self.emb(ids)))\n"
    )
    command("onnx", "mine:Mine", "--output", folder / "mine", cwd=folder)
    command("validate", folder / "mine", "--against", "mine:Mine", cwd=folder)
    return {}


def exported(folder: Path, model: GPT2LMHeadModel, *flags: str) -> dict[str, Any]:
    """The checkpoint exported through the gate, and what the runtime then gives beside transformers."""
    target = folder / "-".join(flags).strip("-")
    command("onnx", folder / "gpt2", "--output", target, *flags)
    session = Session.open(target)
    found = difference(session.logits(PROMPT), model)
    if found > ALLOWED:
        raise AssertionError(f"logits differ by {found:.2g}, {ALLOWED:g} is allowed")
    tokens = [int(ids[0]) for ids in session.generate(PROMPT, max_new_tokens=NEW_TOKENS)]
    wanted = model.generate(torch.tensor(PROMPT), max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None)
    if tokens != wanted[0, len(PROMPT[0]) :].tolist():
        raise AssertionError(f"tokens {tokens} are not {wanted.tolist()}")
    return {"largest_difference": found}


def difference(logits: np.ndarray, model: GPT2LMHeadModel) -> float:
    """The largest difference from transformers' logits."""
    with torch.no_grad():
        wanted = model(torch.tensor(PROMPT)).logits.numpy()
    return float(f"{np.abs(logits - wanted).max():.2g}")


def command(*arguments: object, cwd: Path | None = None) -> None:
    """Runs `gpt-export`, and raises its sentence if it fails."""
    words = [sys.executable, "-m", "gpt_export", *map(str, arguments)]
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("Error: ")] or done.stderr.splitlines()
        raise RuntimeError(f"exit code {done.returncode}: {lines[-1].removeprefix('Error: ')}")


if __name__ == "__main__":
    main()
