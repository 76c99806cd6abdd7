"""One checkpoint in the format of every peer, converted once by the peers' own tools, in a folder of the cache."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from benches.decoding.environments import genai_python, llama_python, llama_source, openvino_python, optimum_python
from benches.peers import CACHE

OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
QUANTISED = {"q8_0": 7, "q4_0": 2, "q4_k_m": 15}
"""llama.cpp's files by name, and the number of each in `llama_ftype` of llama.h."""
_QUANTISE = """
import ctypes, sys, llama_cpp
source, target, kind = sys.argv[1:]
params = llama_cpp.llama_model_quantize_default_params()
params.ftype, params.nthread = int(kind), 2
sys.exit(llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)))
"""
END = "<|endoftext|>"


class Files:
    """What each peer reads, made from one Hugging Face checkpoint when it is asked for."""

    def __init__(self, source: Path, cache: Path = CACHE) -> None:
        self.cache = cache
        self.folder = cache / "decoding" / source.name
        self.source = source

    def family(self) -> str:
        """The checkpoint's `model_type` in transformers."""
        return str(json.loads((self.source / "config.json").read_text(encoding="utf-8"))["model_type"])

    def checkpoint(self) -> Path:
        """The checkpoint with the `n_ctx` that llama.cpp's converter wants, and a tokenizer if it has none."""
        folder = self.folder / "checkpoint"
        if not (folder / "config.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            for path in self.source.iterdir():
                if path.name != "config.json" and not (folder / path.name).exists():
                    (folder / path.name).symlink_to(path.resolve())
            if not (folder / "tokenizer.json").exists():
                write_gpt2_tokenizer(folder)
            config = json.loads((self.source / "config.json").read_text(encoding="utf-8"))
            if "n_positions" in config:
                config["n_ctx"] = config["n_positions"]
            (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
        return folder

    def artifact(self, calibration: Path | None = None) -> Path:
        """Our artifact in every precision that peers have, with a cache of float32 and one of 8 bits.

        int4 is rounded for the text `calibration` if there is one.

        The gate is recorded and not enforced: it measures what quantisation costs, and weights may be random.
        """
        command = [Path(sys.executable).with_name("gpt-export"), "onnx", self.checkpoint(), "--gate", "report"]
        command = [
            *command,
            "--precision",
            "fp32,int8,int4",
            "--kv-cache",
            "fp32,int8",
            *(["--calibration", calibration] if calibration else []),
        ]
        return self._made("artifact-calibrated" if calibration else "artifact", [*command, "--output"])

    def optimum(self) -> Path:
        """Optimum's export with a cache."""
        tool = optimum_python(self.cache).with_name("optimum-cli")
        task = ["--task", "text-generation-with-past", "--model", self.checkpoint()]
        return self._made("optimum", [tool, "export", "onnx", *task])

    def openvino(self, precision: str) -> Path:
        """optimum-intel's export in fp32, int8 or int4, compressed by NNCF as its command line does by default."""
        tool = openvino_python(self.cache).with_name("optimum-cli")
        task = ["--task", "text-generation-with-past", "--model", self.checkpoint(), "--weight-format", precision]
        return self._made(f"openvino-{precision}", [tool, "export", "openvino", *task])

    def ctranslate(self, precision: str) -> Path:
        """CTranslate2's conversion to float32 or int8."""
        tool = openvino_python(self.cache).with_name("ct2-transformers-converter")
        command = [tool, "--model", self.checkpoint(), "--quantization", precision, "--output_dir"]
        return self._made(f"ctranslate-{precision}", command)

    def genai(self, precision: str) -> Path:
        """What the model builder of onnxruntime-genai writes for a CPU in fp32 or int4."""
        source, python = self.checkpoint(), genai_python(self.cache)
        command = [python, "-m", "onnxruntime_genai.models.builder", "-m", source, "-i", source]
        command = [*command, "-p", precision, "-e", "cpu", "-c", self.folder / "genai-cache", "-o"]
        return self._made(f"genai-{precision}", command)

    def llama(self, kind: str) -> Path:
        """A .gguf of llama.cpp: `f32`, or one of `QUANTISED`."""
        if kind == "f32":
            source, python = llama_source(self.cache), optimum_python(self.cache)
            command = [python, source / "convert_hf_to_gguf.py", self.checkpoint(), "--outtype", "f32", "--outfile"]
            return self._made("f32.gguf", command, {"PYTHONPATH": str(source / "gguf-py")})
        command = [llama_python(self.cache), "-c", _QUANTISE, self.llama("f32")]
        return self._made(f"{kind}.gguf", command, after=[str(QUANTISED[kind])])

    def _made(
        self,
        name: str,
        command: Sequence[str | Path],
        environment: dict[str, str] | None = None,
        after: Sequence[str] = (),
    ) -> Path:
        """`<folder>/<name>`, written by `command` with a path behind it if it is not there."""
        path = self.folder / name
        if not path.exists():
            print(f"writing {name}", file=sys.stderr)
            draft = path.with_name(f"draft-{name}")
            _remove(draft)
            run = [str(part) for part in (*command, draft, *after)]
            done = subprocess.run(
                run, env=os.environ | OFFLINE | (environment or {}), capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise SystemExit(f"{' '.join(run[:3])} failed:\n{done.stderr[-2000:]}")
            draft.rename(path)
        return path


def write_gpt2_tokenizer(folder: Path) -> None:
    """GPT-2's tokenizer as Hugging Face saves it, from the project's embedded merges."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE

    lines = files("gpt_export_models").joinpath("data/vocab.bpe").read_text(encoding="utf-8").splitlines()
    merges = [(left, right) for left, right in (line.split(" ") for line in lines[1:] if line)]
    # In GPT-2's order of ids: the characters that stand for bytes, what each merge makes, the end of text.
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(left + right for left, right in merges), END]
    tokenizer = Tokenizer(BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END])
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))
    settings = {"tokenizer_class": "GPT2Tokenizer"} | dict.fromkeys(("bos_token", "eos_token", "unk_token"), END)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
