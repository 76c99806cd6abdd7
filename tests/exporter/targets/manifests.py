"""Manifests of artifacts that were never exported, for targets that look at nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpt_export.artifact.manifest import Manifest
from gpt_export.runtime.signature import CacheShape, Head, Signature, cached, uncached
from gpt_export.targets.facts import Facts
from gpt_export_models.config import GPT_CONFIG_124M

PATHS = {"fp32": "model.onnx", "fp16": "model_fp16.onnx", "int8": "model_quantized.onnx", "int4": "model_q4.onnx"}
SHAPE = CacheShape.alike(n_layers=2, n_heads=4, head_dim=8)
GPT2: dict[str, Any] = {**GPT_CONFIG_124M, "emb_dim": 32, "n_heads": 4, "n_layers": 2, "tied_head": True}


def manifest(
    *variants: str,
    name: str = "small",
    tokenizer: str | None = "gpt2",
    cache: CacheShape | None = SHAPE,
    external: tuple[str, ...] = (),
    source: dict[str, Any] | None = None,
    files: tuple[str, ...] = (),
    configuration: dict[str, Any] = GPT2,
    export: dict[str, Any] | None = None,
    **of_each: Any,
) -> Manifest:
    """A manifest with these variants, all of a shape; `external` are those with data beside them."""
    vocab = configuration["vocab_size"]
    signature = cached(vocab, cache) if cache else uncached(Head(width=vocab))
    paths = [f"onnx/{PATHS[each]}" for each in variants] + [f"onnx/{PATHS[each]}_data" for each in external]
    return Manifest(
        name=name,
        source=source or {"kind": "checkpoint", "family": "huggingface", "name": name},
        export=export or {},
        model={
            "vocab_size": vocab,
            "context_length": configuration["context_length"],
            "tokenizer": tokenizer,
            "configuration": configuration,
            "notes": [],
        },
        variants={each: _variant(each, signature, cache) | of_each for each in variants},
        libraries={},
        parity=None,
        files={path: {"sha256": "0" * 64, "size_bytes": 1000} for path in (*paths, *files)},
    )


def facts(*variants: str, **settings: Any) -> Facts:
    return Facts.of(Path("nowhere"), manifest(*(variants or ("fp32",)), **settings))


def _variant(name: str, signature: Signature, cache: CacheShape | None) -> dict[str, Any]:
    return {
        "path": f"onnx/{PATHS[name]}",
        "opset": 18,
        "ir_version": 8,
        "minimum_onnxruntime": "1.17",
        "inputs": [spec.to_dict() for spec in signature.inputs],
        "outputs": [spec.to_dict() for spec in signature.outputs],
        "cache": cache.to_dict() if cache else None,
        "weights": {},
    }
