"""What people's files really are: each in one sentence that says what it is and the way that exists, and its "
"exit code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.conftest import Run

Write = Callable[[Path], Path]
ONE = torch.ones(4, 4)
LLAMA = {"model.embed_tokens.weight": ONE, "model.layers.0.self_attn.q_proj.weight": ONE}
NANOCHAT = {
    "transformer.wte.weight": ONE,
    "transformer.h.0.attn.c_q.weight": ONE,
    "transformer.h.0.attn.c_k.weight": ONE,
    "transformer.h.0.mlp.c_fc.weight": torch.ones(16, 4),
    "lm_head.weight": ONE,
}


def folder(config: Mapping[str, Any] | None = None, **files: Any) -> Write:
    """Writes a folder: its config.json, tensors as safetensors, the rest as they are."""

    def write(path: Path) -> Path:
        if config is not None:
            (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        for name, content in files.items():
            file = path / name.replace("__", ".")
            if isinstance(content, dict) and file.suffix == ".safetensors":
                save_file({key: tensor.clone() for key, tensor in content.items()}, file)
            elif isinstance(content, dict) and file.suffix == ".json":
                file.write_text(json.dumps(content), encoding="utf-8")
            else:
                file.write_bytes(content)
        return path

    return write


def file(name: str, content: Any) -> Write:
    """Writes one file."""

    def write(path: Path) -> Path:
        if isinstance(content, bytes):
            (path / name).write_bytes(content)
        else:
            torch.save(content, path / name)
        return path / name

    return write


def quantised(method: str, **more: Any) -> Write:
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "quantization_config": {"quant_method": method} | more,
    }
    return folder(config, model__safetensors=LLAMA)


ADAPTER = {"peft_type": "LORA", "base_model_name_or_path": "openai-community/gpt2", "r": 8, "lora_alpha": 8}
CASES: Mapping[str, tuple[Write, int, tuple[str, ...]]] = {
    "an adapter alone": (
        folder(adapter_config__json=ADAPTER, adapter_model__safetensors={"a": ONE}),
        1,
        ("holds an adapter alone (peft_type LORA, trained on openai-community/gpt2)", "--base FOLDER"),
    ),
    "an adapter alone of another kind": (
        folder(adapter_config__json=ADAPTER | {"peft_type": "IA3"}),
        1,
        ("holds an adapter alone (peft_type IA3, trained on openai-community/gpt2)", "--base FOLDER"),
    ),
    "a classification head": (
        folder({"model_type": "gpt2", "architectures": ["GPT2ForSequenceClassification"]}, model__safetensors=LLAMA),
        1,
        (
            "is a GPT2ForSequenceClassification (architectures in config.json, model_type gpt2)",
            "gpt-export onnx my_model:make",
        ),
    ),
    "a masked language model": (
        folder({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, model__safetensors=LLAMA),
        1,
        ("is a BertForMaskedLM (architectures in config.json, model_type bert)", "gpt-export onnx my_model:make"),
    ),
    "GPTQ": (
        quantised("gptq"),
        1,
        ("quantised weights of a llama (quantization_config in config.json: gptq)", "GPTQModel"),
    ),
    "AWQ": (quantised("awq"), 1, ("quantization_config in config.json: awq", "dequantise them first, with GPTQModel")),
    "bitsandbytes": (
        quantised("bitsandbytes", load_in_4bit=True),
        1,
        ("quantization_config in config.json: bitsandbytes", ".dequantize().save_pretrained(OUT)"),
    ),
    "bitsandbytes of an old version": (
        folder({"model_type": "llama", "quantization_config": {"load_in_8bit": True}}, model__safetensors=LLAMA),
        1,
        ("quantization_config in config.json: bitsandbytes", ".dequantize().save_pretrained(OUT)"),
    ),
    "some other quantisation": (quantised("quanto"), 1, ("quantization_config in config.json: quanto", "dequantise")),
    "GGUF by its name": (
        folder(model__gguf=b"GGUF\x03\0\0\0"),
        1,
        ("a GGUF file of llama.cpp (model.gguf)", "gguf_file=NAME"),
    ),
    "GGUF by its bytes": (
        file("weights.bin", b"GGUF\x03\0\0\0" + b"\0" * 99),
        1,
        ("is a GGUF file of llama.cpp", "gguf_file="),
    ),
    "TensorFlow": (
        folder({"model_type": "gpt2"}, tf_model__h5=b"\x89HDF\r\n\x1a\n"),
        1,
        ("(tf_model.h5)", "from_tf=True"),
    ),
    "HDF5 by its bytes": (
        file("weights", b"\x89HDF\r\n\x1a\n" + b"\0" * 99),
        1,
        ("weights of TensorFlow", "from_tf=True"),
    ),
    "flax": (
        folder({"model_type": "gpt2"}, flax_model__msgpack=b"\x81\xa1a\xc0"),
        1,
        ("weights of flax", "from_flax=True"),
    ),
    "OpenAI's own": (
        folder(model__ckpt__index=b"\0\0", model__ckpt__meta=b"\0", hparams__json={"n_vocab": 50257}),
        1,
        (
            "a TensorFlow checkpoint (model.ckpt.index, model.ckpt.meta)",
            "convert_gpt2_original_tf_checkpoint_to_pytorch",
        ),
    ),
    "an ONNX file": (
        file("model.onnx", b"\x08\x07\x12\x07pytorch"),
        1,
        ("is an ONNX model", "gpt-export validate FILE"),
    ),
    "nanochat": (
        file("model_000650.pt", NANOCHAT),
        1,
        ("is nanochat or a kin of it", "gpt-export onnx package.module:factory --weights"),
    ),
    "a Llama without its folder": (
        file("llama.pt", {"state_dict": {f"module.{name}": tensor for name, tensor in LLAMA.items()}}),
        1,
        ("is a decoder of Hugging Face's of another architecture than GPT-2", "put its config.json beside it"),
    ),
    "a Llama of Meta's": (
        file("consolidated.00.pth", {"layers.0.attention.wq.weight": ONE}),
        1,
        ("is a Llama as Meta wrote it", "convert_llama_weights_to_hf"),
    ),
    "a PEFT model's state dict": (
        file("all.pt", {"base_model.model.transformer.h.0.attn.c_attn.lora_A.default.weight": ONE}),
        1,
        ("is the state dict of a PEFT model", "merge_and_unload()"),
    ),
    "GPTQ weights without a configuration": (
        file("q.pt", {"layers.0.q_proj.qweight": ONE.int(), "layers.0.q_proj.qzeros": ONE.int()}),
        1,
        ("is GPTQ or AWQ weights", "dequantise"),
    ),
    "the book's classifier": (
        file(
            "spam.pth",
            {"tok_emb.weight": torch.ones(64, 4), "out_head.weight": torch.ones(2, 4), "trf_blocks.0.x": ONE},
        ),
        1,
        (
            "is a classifier with the book's names: its out_head gives 2 scores",
            "gpt-export onnx package.module:factory",
        ),
    ),
    "low-rank layers without alpha": (
        file("lora.pth", {"tok_emb.weight": torch.ones(8, 4), "out_head.lora.A": ONE, "out_head.lora.B": ONE}),
        2,
        ("has low-rank layers (LinearWithLoRA of the book's appendix E)", "--lora-alpha (16 in the book)"),
    ),
    "weights of nothing known": (
        file("x.pt", {f"encoder.{i}.weight": ONE for i in range(20)}),
        1,
        ("holds no GPT of a known family", "gpt-export onnx package.module:factory --weights"),
    ),
    "an empty folder": (folder({"model_type": "gpt2"}), 1, ("holds no weights; it needs one of model.safetensors",)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_file_that_is_not_read_is_answered_by_what_it_is_and_the_way_that_exists(
    name: str, cli: Callable[..., Run], tmp_path: Path
) -> None:
    write, code, words = CASES[name]
    (tmp_path / "in").mkdir()
    path = write(tmp_path / "in")
    run = cli("onnx", path, "--output", tmp_path / "out")
    text = run.refused(code, *words)
    first = text.split(";")[0]
    assert words[0].split(";")[0] in first  # what it is comes first
    assert not (tmp_path / "out").exists()


def test_a_hub_name_is_answered_by_the_cache_or_by_how_to_download_it(
    cli: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = pytest.importorskip("transformers")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    run = cli("onnx", "openai-community/gpt2", "--output", tmp_path / "out")
    run.refused(
        2, "is not a path, and no model of that name is in the Hugging Face cache", "hf download openai-community/gpt2"
    )
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=19, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    )
    repository = tmp_path / "hub" / "models--openai-community--gpt2"
    for revision in ("aaa111", "bbb222"):
        model.save_pretrained(repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("aaa111", encoding="utf-8")
    run = cli("onnx", "openai-community/gpt2", "--output", tmp_path / "out", "--cases", "grid", "--json")
    assert run.code == 0, run.err
    assert run.json()["manifest"]["name"] == "gpt2"
    again = cli("validate", tmp_path / "out", "--against", "openai-community/gpt2", "--cases", "grid")
    assert again.code == 0, again.err


def test_a_hub_name_is_answered_without_torch(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from click.testing import CliRunner; from gpt_export.cli import cli\n"
        "run = CliRunner().invoke(cli, ['onnx', 'nobody/nothing'])\n"
        "assert run.exit_code == 2, run.output\nassert 'hf download nobody/nothing' in run.output + run.stderr\n"
        "assert 'torch' not in sys.modules"
    )
    environment = {"HF_HUB_CACHE": str(tmp_path)}
    import os

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("pad", [None, 0])
def test_the_way_of_a_classification_head_exists(
    pad: int | None, user_module: Callable[[str], str], cli: Callable[..., Run], tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=19, n_positions=8, n_embd=8, n_layer=1, n_head=2, num_labels=3, pad_token_id=pad
    )
    transformers.GPT2ForSequenceClassification(config).save_pretrained(tmp_path / "in")
    text = cli("onnx", tmp_path / "in").refused(1, "is a GPT2ForSequenceClassification")
    call = text.partition("returns ")[2].partition(", and then")[0]
    name = user_module(f"import transformers\ndef make():\n    return {call}\n")
    run = cli("onnx", f"{name}:make", "--output", tmp_path / "out", "--cases", "grid")
    assert run.code == 0, run.err
