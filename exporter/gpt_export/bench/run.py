"""An artifact to its measurements: the bandwidth of the memory, and each variant in a process of its own."""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort

from gpt_export.artifact.machine import available_cores, processor
from gpt_export.artifact.reading import Artifact
from gpt_export.bench.bandwidth import measure_bandwidth
from gpt_export.bench.bytes_read import bytes_per_token
from gpt_export.bench.plan import BenchConfig, Plan, plan
from gpt_export.errors import ArtifactError
from gpt_export.lifeline import lifeline
from gpt_export.progress import OnStage, ignore
from gpt_export.runtime.signature import CacheShape

logger = logging.getLogger(__name__)

BUSY_CORES = 0.5
CACHE_BYTES = {"float32": 4, "float16": 2, "int8": 1}


def benchmark(
    folder: Path,
    variants: Sequence[str] = (),
    config: BenchConfig | None = None,
    *,
    on_stage: OnStage = ignore,
    bandwidth_bytes: int | None = None,
) -> dict[str, Any]:
    """What `gpt-export bench` found, in JSON values.

    `variants` by name, each with `size_bytes`, `load_s`, `prefill_ms` by length, `decode_tok_s` by batch, `growth` of a
    step with the context, `memory`, and its `roofline`; beside them the measured `bandwidth`, the `plan`, `machine` and
    `notes`.

    Args:
        variants: which of the artifact's; all if left out.
        bandwidth_bytes: size of the array that the bandwidth is measured on; for the caches if left out.

    Raises:
        ArtifactError: no such artifact or variant, or it does not run.
        ConfigError: the model has no room for what is measured.
    """
    config = config or BenchConfig()
    artifact = Artifact.open(folder)
    chosen = list(dict.fromkeys(variants or artifact.manifest.variants))
    paths = {variant: artifact.variant_path(variant) for variant in chosen}
    if not chosen:
        raise ArtifactError(f"{folder} has no variant to measure, only TorchScript; export it with gpt-export onnx")
    planned = plan(config, int(artifact.manifest.model["context_length"]))
    busy = others_load()
    on_stage("measure the memory's bandwidth")
    bandwidth = measure_bandwidth(config.threads, bandwidth_bytes)
    found = {}
    for variant in chosen:
        on_stage(f"measure {variant}")
        found[variant] = _measured(artifact, variant, planned)
    for variant, values in found.items():
        entry = artifact.manifest.variants[variant]
        files = (str(entry["path"]), f"{entry['path']}_data")
        values["size_bytes"] = sum(
            int(artifact.manifest.files[name]["size_bytes"]) for name in files if name in artifact.manifest.files
        )
        values["profile"] = entry.get("profile", "portable")
        values["roofline"] = roofline(values, bytes_per_token(paths[variant]), _cache_bytes(entry, planned), bandwidth)
    return {
        "artifact": artifact.manifest.name,
        "bandwidth": bandwidth,
        "machine": machine(),
        "notes": [*_busy(busy), *planned.notes, *_uncached(artifact, chosen)],
        "plan": planned.to_dict(),
        "variants": found,
    }


def others_load() -> float | None:
    """How many of the cores were busy over the last minute with what else runs; None where the system does not say."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def _busy(load: float | None) -> list[str]:
    """A note where others had more than a part of a core, so that the figures are theirs as well."""
    if load is None or load < BUSY_CORES:
        return []
    return [
        f"the machine is busy: other programs had {load:.1f} of {available_cores()} cores when this began, so the "
        "figures say less than they could"
    ]


def _uncached(artifact: Artifact, variants: Sequence[str]) -> list[str]:
    """A note on each variant whose steps run all tokens again."""
    uncached = [variant for variant in variants if not artifact.manifest.variants[variant]["cache"]]
    return [f"{variant} has no cache: every step runs all tokens again" for variant in uncached]


def roofline(values: dict[str, Any], weights_bytes: int, cache_bytes: int, bandwidth: dict[str, Any]) -> dict[str, Any]:
    """How near decoding of one row is to reading its bytes once a token, which is as fast as a memory lets it be.

    `tok_s` is the bandwidth over the bytes of weights; `share` is what was measured of it, and `share_with_cache` of
    the bandwidth over weights and the cache's keys and values. Above 1 the weights fit a cache of the processor's.
    `share` is None where batch 1 was not measured.
    """
    bytes_s = float(bandwidth["gb_s"]) * 1e9
    decode = values["decode_tok_s"].get("1")
    share = decode["median"] * weights_bytes / bytes_s if decode else None
    with_cache = decode["median"] * (weights_bytes + cache_bytes) / bytes_s if decode else None
    return {
        "weights_mb": round(weights_bytes / 1e6, 3),
        "cache_mb": round(cache_bytes / 1e6, 3),
        "tok_s": round(bytes_s / weights_bytes, 2),
        "share": None if share is None else round(share, 4),
        "share_with_cache": None if with_cache is None else round(with_cache, 4),
    }


def machine() -> dict[str, Any]:
    """What of the machine decides the figures; neither its name nor its paths."""
    versions = {"onnxruntime": ort.__version__, "python": platform.python_version()}
    return {"cores": available_cores(), "cpu": processor()} | versions


def _measured(artifact: Artifact, variant: str, planned: Plan) -> dict[str, Any]:
    request = {"folder": str(artifact.folder), "variant": variant, "plan": planned.to_dict()}
    command = [sys.executable, "-m", "gpt_export.bench.child"]
    logger.info("measuring %s", variant)
    with lifeline(json.dumps(request)) as stdin:
        done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ArtifactError(
            f"the process that measured {variant} of {artifact.folder} ended: {reason}; "
            "run gpt-export generate to see whether the variant works, or measure fewer rows with --batch"
        )
    values: dict[str, Any] = json.loads(done.stdout)
    if "error" in values:
        raise ArtifactError(values["error"])
    return values


def _cache_bytes(entry: dict[str, Any], planned: Plan) -> int:
    """Bytes of keys and values that a step in the middle of decoding reads for one row; 0 without a cache."""
    if not entry["cache"]:
        return 0
    layers = CacheShape.from_dict(entry["cache"]).layers
    element = CACHE_BYTES[str(entry.get("cache_dtype", "float32"))]
    tokens = planned.decode_context + planned.new_tokens // 2
    return sum(layer.n_heads * (layer.key_dim + layer.value_dim) for layer in layers) * element * tokens
