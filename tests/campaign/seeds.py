"""What the mutations begin with: the smallest files of each kind that every command takes."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.byte_gpt import byte_tokenizer, save_byte_gpt

GPT2 = {"n_embd": 12, "n_head": 3, "n_layer": 1, "n_positions": 16, "vocab_size": 257}
SECRET = b"not to be read by anyone"
REQUEST = b"GET /artifact/manifest.json HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: */*\r\n\r\n"


def make_seeds(folder: Path) -> Path:
    """The folder with `checkpoint`, `gpt2`, `sharded`, `artifact` and `request` in it; made where it is not there."""
    if (folder / "done").exists():
        return folder
    checkpoint, config = save_byte_gpt(folder / "checkpoint")
    config.rename(folder / "checkpoint" / "config.json")
    _hugging_face(folder / "gpt2", shards=1)
    _hugging_face(folder / "sharded", shards=2)
    _artifact(checkpoint, folder / "artifact")
    (folder / "request").mkdir()
    (folder / "request" / "request").write_bytes(REQUEST)
    (folder / "secret").write_bytes(SECRET)  # one step up from the artifact that is served
    (folder / "done").touch()
    return folder


def _artifact(checkpoint: Path, output: Path) -> None:
    # In a process of its own: whoever forks must not have threads of onnxruntime's.
    if child := os.fork():
        if os.waitpid(child, 0)[1]:
            raise SystemExit("the seeds of the campaign cannot be exported")
        return
    from gpt_export.pipeline import stages
    from gpt_export.pipeline.config import ExportConfig
    from gpt_export.sources.gpt import checkpoint_source

    try:
        stages.export(
            checkpoint_source(checkpoint, config_file=checkpoint.with_name("config.json")), ExportConfig(), output
        )
        os._exit(0)
    finally:
        os._exit(1)


def _hugging_face(folder: Path, *, shards: int) -> None:
    from safetensors.torch import save_file

    from tests.integration.test_bad_checkpoints import gpt2_state

    folder.mkdir(parents=True)
    state = gpt2_state(GPT2)
    names = sorted(state)
    if shards == 1:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        homes = {}
        for i in range(shards):
            file = f"model-0000{i + 1}-of-0000{shards}.safetensors"
            save_file({name: state[name] for name in names[i::shards]}, folder / file, metadata={"format": "pt"})
            homes |= dict.fromkeys(names[i::shards], file)
        index = {"metadata": {"total_size": 1}, "weight_map": homes}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    end = "<|endoftext|>"
    files = {
        "config.json": {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "eos_token_id": 256, **GPT2},
        "generation_config.json": {"eos_token_id": [256], "bos_token_id": 256, "temperature": 1.0},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": end, "model_max_length": 16,
            "bos_token": {"content": end, "special": True},
            "chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}",
            "added_tokens_decoder": {"256": {"content": end, "special": True}},
        },
        "special_tokens_map.json": {"eos_token": end, "unk_token": {"content": end}},
        "added_tokens.json": {end: 256},
    }  # fmt: skip
    for name, values in files.items():
        (folder / name).write_text(json.dumps(values), encoding="utf-8")
