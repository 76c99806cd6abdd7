from __future__ import annotations

import gc
import json
import struct
from pathlib import Path

import pytest
import torch
from gpt_export_models.checkpoints import expected_shapes, read_checkpoint
from gpt_export_models.config import GPTConfig

STATUS = Path("/proc/self/status")
MIB = 2**20

pytestmark = pytest.mark.skipif(not STATUS.exists(), reason="anonymous memory is counted in Linux's /proc/self/status")


def anonymous_bytes() -> int:
    gc.collect()
    return next(int(line.split()[1]) * 1024 for line in STATUS.read_text().splitlines() if line.startswith("RssAnon"))


def config(*, tied: bool, norm_bias: bool = True) -> GPTConfig:
    return GPTConfig(
        vocab_size=50304,
        context_length=8,
        emb_dim=640,
        n_heads=10,
        n_layers=1,
        drop_rate=0.0,
        qkv_bias=norm_bias,
        linear_bias=norm_bias,
        norm_bias=norm_bias,
        tied_head=tied,
    )


def write_sparse_safetensors(path: Path, shapes: dict[str, tuple[int, ...]], *, pad: int) -> None:
    """A valid file of zeros that takes no room on the disk; `pad` moves the tensors off their natural alignment."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * torch.Size(shape).numel()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8 + pad)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


def huggingface(path: Path, pad: int = 0) -> None:
    path.mkdir()
    ours = expected_shapes(config(tied=True))
    shapes = {"wte.weight": ours["tok_emb.weight"], "wpe.weight": ours["pos_emb.weight"]}
    for name, shape in {
        "ln_1": (640,), "attn.c_attn": (640, 1920), "attn.c_proj": (640, 640),
        "ln_2": (640,), "mlp.c_fc": (640, 2560), "mlp.c_proj": (2560, 640),
    }.items():  # fmt: skip
        shapes |= {f"h.0.{name}.weight": shape, f"h.0.{name}.bias": shape[-1:]}
    shapes |= {"ln_f.weight": (640,), "ln_f.bias": (640,)}
    write_sparse_safetensors(path / "model.safetensors", shapes, pad=pad)
    settings = {"vocab_size": 50304, "n_positions": 8, "n_embd": 640, "n_head": 10, "n_layer": 1, "model_type": "gpt2"}
    (path / "config.json").write_text(json.dumps(settings))


def unaligned(path: Path) -> None:
    huggingface(path, pad=3)


def book(path: Path) -> None:
    shapes = expected_shapes(config(tied=False))
    state = {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}
    head = torch.zeros(50304, 640)
    torch.save({"model_state_dict": state | {"out_head.weight": head, "tok_emb.weight": head.clone()}}, path)


def nanogpt(path: Path) -> None:
    wte = torch.zeros(50304, 640)
    state = {"transformer.wte.weight": wte, "transformer.wpe.weight": torch.zeros(8, 640)}
    for name, shape in {"attn.c_attn": (1920, 640), "attn.c_proj": (640, 640)}.items():
        state[f"transformer.h.0.{name}.weight"] = torch.zeros(shape)
    for name, shape in {"mlp.c_fc": (2560, 640), "mlp.c_proj": (640, 2560)}.items():
        state[f"transformer.h.0.{name}.weight"] = torch.zeros(shape)
    state |= {f"transformer.{name}.weight": torch.ones(640) for name in ("h.0.ln_1", "h.0.ln_2", "ln_f")}
    args = {
        "n_layer": 1,
        "n_head": 10,
        "n_embd": 640,
        "block_size": 8,
        "bias": False,
        "vocab_size": 50304,
        "dropout": 0.0,
    }
    torch.save({"model": state | {"lm_head.weight": wte}, "optimizer": {"m": wte.clone()}, "model_args": args}, path)


@pytest.mark.parametrize("write", [huggingface, unaligned, book, nanogpt])
def test_weights_are_mapped_and_not_copied(tmp_path, write):
    path = tmp_path / "model"
    write(path)
    assert sum(file.stat().st_size for file in [path, *path.glob("*")]) > 100 * MIB
    heads = 10 if write is book else None  # which its file does not say
    read_checkpoint(path, heads=heads)  # what the first read imports is not what is measured
    before = anonymous_bytes()
    checkpoint = read_checkpoint(path, heads=heads)
    total = sum(float(tensor.sum()) for tensor in checkpoint.tensors.values())
    grown = anonymous_bytes() - before
    assert total in (0.0, 3 * 640.0)
    assert grown < 30 * MIB
