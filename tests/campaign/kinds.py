"""Kinds of hostile input: a seed, the table of its mutations, and the commands that read what came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.campaign.mutations import Op
from tests.campaign.mutations.graphs import graph_ops
from tests.campaign.mutations.json_values import json_ops
from tests.campaign.mutations.manifests import manifest_ops, with_right_hashes
from tests.campaign.mutations.pickles import pickle_ops
from tests.campaign.mutations.raw import raw_ops
from tests.campaign.mutations.requests import request_ops
from tests.campaign.mutations.safetensors_file import safetensors_ops

CONFIGS = ("config.json", "generation_config.json", "tokenizer_config.json")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
SHARDS = tuple(f"model-0000{i}-of-00002.safetensors" for i in (1, 2))
FEW_CASES = ("--cases", "grid-1x1", "--text", "a")

Argv = Callable[[Path, Path], list[str]]
"""The folder that was mutated and one that may be written to, to a command line."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What is mutated, how, and who reads it."""

    name: str
    seed: str
    ops: Mapping[str, Op]
    actions: tuple[Argv, ...]
    cost: float = 1.0
    """Of an input, relative to the others: what takes longer is tried less often."""
    exports: bool = False
    """Whether its commands export, which may take longer than reading."""


def _read(folder: Path, _: Path) -> list[str]:
    return ["read", str(folder)]


def _read_file(folder: Path, _: Path) -> list[str]:
    return ["read", str(folder / "model.pth"), "--config", str(folder / "config.json")]


def _export(folder: Path, out: Path) -> list[str]:
    return ["onnx", str(folder), "--output", str(out / "x"), "--gate", "off", "--no-cache"]


def _on(command: str, *options: str, file: str = "") -> Argv:
    return lambda folder, _: [command, str(folder / file), *options]


def _package(target: str) -> Argv:
    return lambda folder, out: ["package", str(folder), "--target", target, "--output", str(out / "x")]


LOOKED_AT = (
    _on("inspect"),
    _on("inspect", "--json"),
    _on("lint"),
    _on("generate", "ab", "--max-new-tokens", "2", "--threads", "1"),
    _package("genai"),
    _package("triton"),
    _package("archive"),
)
GRAPH_READ = (
    _on("inspect", file="onnx/model.onnx"),
    _on("lint", file="onnx/model.onnx"),
    _on("lint"),
    _on("generate", "ab", "--max-new-tokens", "2", "--threads", "1"),
)

KINDS = {
    kind.name: kind
    for kind in (
        Kind("manifest", "artifact", manifest_ops(), LOOKED_AT),
        Kind(
            "onnx",
            "artifact",
            {name: with_right_hashes(op) for name, op in (graph_ops() | raw_ops(["onnx/model.onnx"])).items()},
            GRAPH_READ,
            cost=3.0,
        ),
        Kind("pickle", "checkpoint", pickle_ops() | raw_ops(["model.pth"]), (_read_file,)),
        Kind("safetensors", "gpt2", safetensors_ops(["model.safetensors"]) | raw_ops(["model.safetensors"]), (_read,)),
        Kind("configuration", "gpt2", json_ops(CONFIGS) | raw_ops(CONFIGS), (_read,)),
        Kind("tokenizer", "gpt2", json_ops(TOKENIZER) | raw_ops(TOKENIZER), (_read,)),
        Kind(
            "index",
            "sharded",
            json_ops(["model.safetensors.index.json"])
            | raw_ops(["model.safetensors.index.json"])
            | safetensors_ops(SHARDS),
            (_read,),
        ),
        Kind(
            "exported",
            "gpt2",
            json_ops((*CONFIGS, *TOKENIZER)) | safetensors_ops(["model.safetensors"]),
            (_export,),
            cost=20.0,
            exports=True,
        ),
        Kind("request", "request", request_ops() | raw_ops(["request"]), (lambda *_: [],)),
    )
}
