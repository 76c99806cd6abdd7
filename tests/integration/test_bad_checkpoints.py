"""Bad checkpoints through the command line: one sentence, exit 1, nothing published, quickly."""

from __future__ import annotations

import json
import os
import re
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.byte_gpt import CONFIG, byte_tokenizer, save_byte_gpt
from tests.conftest import Run, tree

safetensors = pytest.importorskip("safetensors.torch", reason="safetensors writes the files: pip install safetensors")

SIZES = {"vocab_size": 57, "n_positions": 14, "n_embd": 12, "n_layer": 2, "n_head": 3}


def gpt2_state(sizes: dict[str, int] = SIZES) -> dict[str, torch.Tensor]:
    """GPT-2's tensors under Hugging Face's names."""
    width, generator = sizes["n_embd"], torch.Generator().manual_seed(0)
    shapes = {"wte.weight": (sizes["vocab_size"], width), "wpe.weight": (sizes["n_positions"], width)}
    for layer in range(sizes["n_layer"]):
        for name, shape in {
            "ln_1.weight": (width,), "ln_1.bias": (width,), "ln_2.weight": (width,), "ln_2.bias": (width,),
            "attn.c_attn.weight": (width, 3 * width), "attn.c_attn.bias": (3 * width,),
            "attn.c_proj.weight": (width, width), "attn.c_proj.bias": (width,),
            "mlp.c_fc.weight": (width, 4 * width), "mlp.c_fc.bias": (4 * width,),
            "mlp.c_proj.weight": (4 * width, width), "mlp.c_proj.bias": (width,),
        }.items():  # fmt: skip
            shapes[f"h.{layer}.{name}"] = shape
    shapes |= {"ln_f.weight": (width,), "ln_f.bias": (width,)}
    return {f"transformer.{name}": torch.randn(shape, generator=generator) for name, shape in shapes.items()}


class Folder:
    """A GPT-2 of Hugging Face's that can be damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.state = gpt2_state()
        self.config: dict[str, Any] = {"model_type": "gpt2", **SIZES}
        self.weights = path / "model.safetensors"

    def save(self) -> None:
        safetensors.save_file(self.state, self.weights)
        (self.path / "config.json").write_text(json.dumps(self.config), encoding="utf-8")


def truncated(folder: Folder) -> None:
    folder.save()
    data = folder.weights.read_bytes()
    folder.weights.write_bytes(data[: len(data) // 2])


def absurd_header(folder: Folder) -> None:
    folder.save()
    folder.weights.write_bytes(struct.pack("<Q", 2**60) + b"{}")


def runs_code(folder: Folder) -> None:
    class Runs:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {folder.path.parent / 'ran'}",)

    folder.save()
    folder.weights.unlink()
    torch.save({**folder.state, "x": Runs()}, folder.path / "pytorch_model.bin")


def missing_shard(folder: Folder) -> None:
    folder.save()
    folder.weights.rename(folder.path / "part1.safetensors")
    homes = dict.fromkeys(folder.state, "part1.safetensors") | {"transformer.wte.weight": "part2.safetensors"}
    index = folder.path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": homes}), encoding="utf-8")


def misshapen(folder: Folder) -> None:
    folder.state["transformer.h.1.mlp.c_fc.bias"] = torch.ones(49)
    folder.save()


def missing_and_unexpected(folder: Folder) -> None:
    folder.state["transformer.h.0.attn.rotary"] = folder.state.pop("transformer.h.0.ln_2.bias")
    folder.save()


def holds(value: float, name: str) -> Callable[[Folder], None]:
    def damage(folder: Folder) -> None:
        folder.state[name].view(-1)[5] = value
        folder.save()

    return damage


def configured(**changes: Any) -> Callable[[Folder], None]:
    def damage(folder: Folder) -> None:
        folder.config |= changes
        folder.save()

    return damage


def without_weights(folder: Folder) -> None:
    folder.save()
    folder.weights.unlink()


def without_config(folder: Folder) -> None:
    folder.save()
    (folder.path / "config.json").unlink()


def beside(name: str, content: str) -> Callable[[Folder], None]:
    def damage(folder: Folder) -> None:
        folder.save()
        (folder.path / name).write_text(content, encoding="utf-8")

    return damage


BAD: dict[str, tuple[Callable[[Folder], None], tuple[str, ...]]] = {
    "truncated": (truncated, ("is not a complete safetensors file", "download or save it again")),
    "absurd header": (absurd_header, ("is not a complete safetensors file",)),
    "runs code": (runs_code, ("asks for", "system, which could run code")),
    "missing shard": (missing_shard, ("names shards that are not beside it: part2.safetensors; download them",)),
    "off by one": (misshapen, ("misshapen transformer.h.1.mlp.c_fc.bias [49] instead of [48]",)),
    "missing and unexpected": (
        missing_and_unexpected,
        ("missing transformer.h.0.ln_2.bias", "unexpected transformer.h.0.attn.rotary"),
    ),
    "NaN in a matrix": (
        holds(float("nan"), "transformer.h.1.mlp.c_proj.weight"),
        ("the weight trf_blocks.1.ff.layers.2.weight holds NaN or Inf",),
    ),
    "Inf in a norm": (
        holds(float("inf"), "transformer.ln_f.bias"),
        ("the weight final_norm.shift holds NaN or Inf",),
    ),
    "-Inf in the embedding": (
        holds(float("-inf"), "transformer.wte.weight"),
        ("the weight tok_emb.weight holds NaN or Inf",),
    ),
    "other context": (configured(n_positions=15), ("n_positions is 15 in config.json but 14 in the weights",)),
    "more layers": (configured(n_layer=3), ("n_layer is 3 in config.json but 2 in the weights",)),
    "heads that do not divide": (configured(n_head=5), ("emb_dim 12 does not divide into 5 heads",)),
    "cross-attention": (
        configured(add_cross_attention=True),
        ("does not hold the weights of GPT2LMHeadModel: missing transformer.h.0.crossattention",),
    ),
    "other architecture": (configured(model_type="gptj"), ("does not hold the weights of GPTJForCausalLM: missing",)),
    "no weights": (without_weights, ("holds no weights; it needs one of model.safetensors",)),
    "no config": (without_config, ("without a configuration", "put its config.json beside it")),
    "damaged tokenizer": (
        beside("tokenizer.json", '{"version": "1.0"'),
        ("tokenizer.json is not a tokenizer that can be read", "save or download it again"),
    ),
    "tokenizer of another model": (
        beside("tokenizer.json", byte_tokenizer().to_str()),
        ("tokenizer.json has ids up to 255, the model's vocabulary ends at 56",),
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "checkpoint")


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < 60  # a busy machine; it takes one or two


def test_the_undamaged_folder_is_published(folder: Folder, cli: Callable[..., Run], tmp_path: Path) -> None:
    folder.save()
    run = cli("onnx", folder.path, "--output", tmp_path / "out")
    assert run.code == 0, run.err


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_checkpoint_is_one_sentence_and_nothing_is_published(
    fault: str, folder: Folder, cli: Callable[..., Run], tmp_path: Path
) -> None:
    damage, words = BAD[fault]
    damage(folder)
    before = tree(tmp_path)
    run = cli("onnx", folder.path, "--output", tmp_path / "new" / "out")
    run.refused(1, *words)
    assert sum(line.startswith("Error: ") for line in run.err.splitlines()) == 1
    assert "Traceback" not in run.err
    assert run.out == ""
    assert tree(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]  # no staging folder, nothing ran


OTHER_KINDS: dict[str, Callable[[Folder], None]] = {
    "scaled by layer": configured(scale_attn_by_inverse_layer_idx=True),
    "other activation": configured(activation_function="relu"),
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_a_gpt2_that_ours_is_not_is_judged_against_transformers(
    kind: str, folder: Folder, cli: Callable[..., Run], tmp_path: Path
) -> None:
    OTHER_KINDS[kind](folder)
    run = cli("onnx", folder.path, "--output", tmp_path / "out")
    assert run.code == 0, run.err
    assert re.search(r"judged against transformers [\d.]+'s GPT2LMHeadModel", run.out)


def test_a_failed_replacement_leaves_the_artifact(folder: Folder, cli: Callable[..., Run], tmp_path: Path) -> None:
    folder.save()
    assert cli("onnx", folder.path, "--output", tmp_path / "out").code == 0
    before = tree(tmp_path / "out")
    holds(float("nan"), "transformer.wpe.weight")(folder)
    cli("onnx", folder.path, "--output", tmp_path / "out", "--force").refused(1, "holds NaN or Inf")
    assert tree(tmp_path / "out") == before


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_weights_of_no_known_model_name_the_families(suffix: str, cli: Callable[..., Run], tmp_path: Path) -> None:
    torch.save({"encoder.weight": torch.ones(2, 2)}, tmp_path / f"other{suffix}")
    cli("onnx", tmp_path / f"other{suffix}", "--output", tmp_path / "out").refused(
        1,
        "holds no GPT of a known family (from-scratch, huggingface, mingpt, nanogpt) but encoder.weight; export it",
    )


def test_a_configuration_that_disagrees_is_said(cli: Callable[..., Run], tmp_path: Path) -> None:
    path, config_file = save_byte_gpt(tmp_path / "in")
    config_file.write_text(json.dumps(CONFIG | {"emb_dim": 48, "n_layers": 3}), encoding="utf-8")
    cli("onnx", path, "--config", config_file, "--output", tmp_path / "out").refused(
        1, "emb_dim is 48 in ", "but 24 in the weights", "n_layers is 3 in "
    )


def test_a_single_file_above_2_gb_is_refused_before_anything_is_written(
    cli: Callable[..., Run], tmp_path: Path
) -> None:
    folder = Folder(tmp_path / "checkpoint")
    folder.config |= {"n_inner": 300_000, "n_embd": 1024, "n_head": 16, "n_layer": 1}
    folder.state = gpt2_state(SIZES | {"n_embd": 1024, "n_layer": 1})
    small = {name: tensor for name, tensor in folder.state.items() if ".mlp." not in name}
    mlp = {
        "c_fc.weight": (1024, 300_000),
        "c_fc.bias": (300_000,),
        "c_proj.weight": (300_000, 1024),
        "c_proj.bias": (1024,),
    }
    _save_unwritten(folder.weights, small, {f"transformer.h.0.mlp.{name}": shape for name, shape in mlp.items()})
    (folder.path / "config.json").write_text(json.dumps(folder.config), encoding="utf-8")
    run = cli("onnx", folder.path, "--output", tmp_path / "out", "--single-file", "--gate", "off")
    run.refused(2, "GB of weights do not fit a single ONNX file of 2 GB; leave --single-file out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]


def _save_unwritten(path: Path, tensors: dict[str, torch.Tensor], zeros: dict[str, tuple[int, ...]]) -> None:
    """A safetensors file whose `zeros` are room that the disk has given and nobody has written to."""
    header, at = {}, 0
    for name, shape in [*((name, tuple(tensor.shape)) for name, tensor in tensors.items()), *zeros.items()]:
        size = 4 * torch.Size(shape).numel()
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(tensor.numpy().tobytes())
        os.posix_fallocate(file.fileno(), 0, 8 + len(text) + at)
