"""How far onnxruntime is from eager, in units of the float32 noise that eager itself has on the model.

Random decoders of many shapes, and the seeded sources, go through the pipeline with `--gate report`. For every case
the largest difference of the logits is divided by (noise x scale), where the noise is either the one of the gate's
probe or the one of eager on that very case. The noise factor of `gpt_export.gate.limits` is set from the result.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpt_export.gate.cases import Case, choose_cases
from gpt_export.gate.limits import NOISE_FLOOR
from gpt_export.gate.noise import measure_noise
from gpt_export.pipeline.config import ExportConfig
from gpt_export.pipeline.stages import export
from gpt_export.runtime.signature import CacheShape
from gpt_export.sources.names import read_source
from gpt_export.sources.source import Source
from gpt_export_models.blank import blank, filled
from gpt_export_models.config import GPTConfig
from gpt_export_models.gpt import GPTDecoder, GPTModel

from benches.record import RESULTS, significant, write_record

VOCAB_SIZE = 1000
WIDTHS = (32, 768)
LAYERS = (1, 12)
SPREADS = (0.02, 0.2)
HEADS = (1, 2, 3, 4, 5, 6, 8, 12, 16)
HEAD_DIMS = (8, 16, 24, 32, 48, 64, 80, 96, 128)
NAMED = ("dummy-124m", "gpt2-124m")
QUANTILES = (0.5, 0.9, 0.99)


def random_config(rng: np.random.Generator) -> GPTConfig:
    """A decoder of random width, depth, heads, activation, biases and tying; widths are spread evenly in octaves."""
    width = math.exp(rng.uniform(*map(math.log, WIDTHS)))
    shapes = [(h, d) for h in HEADS for d in HEAD_DIMS if WIDTHS[0] <= h * d <= WIDTHS[1]]
    near = sorted(shapes, key=lambda shape: abs(math.log(shape[0] * shape[1] / width)))[:5]
    heads, head_dim = near[rng.integers(len(near))]
    return GPTConfig(
        vocab_size=VOCAB_SIZE,
        context_length=int(rng.choice((64, 256, 1024))),
        emb_dim=heads * head_dim,
        n_heads=heads,
        n_layers=int(rng.integers(LAYERS[0], LAYERS[1] + 1)),
        drop_rate=0.0,
        qkv_bias=bool(rng.integers(2)),
        activation="gelu_tanh" if rng.integers(2) else "gelu_erf",
        tied_head=bool(rng.integers(2)),
    )


def random_source(name: str, config: GPTConfig, weight_spread: float, seed: int) -> Source:
    """A source with every parameter drawn: matrices and biases around 0, norm scales around 1."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for key, parameter in blank(lambda: GPTModel(config)).state_dict().items():
        drawn = torch.randn(parameter.shape, generator=generator) * weight_spread
        weights[key] = drawn + 1 if key.endswith(".scale") else drawn
    if config.tied_head:
        weights["out_head.weight"] = weights["tok_emb.weight"]
    return Source(
        name=name,
        record={"kind": "bench", "seed": seed},
        vocab_size=config.vocab_size,
        context_length=config.context_length,
        reference=lambda: filled(lambda: GPTModel(config), weights),
        skeleton=blank(lambda: GPTDecoder(config)),
        weights=weights,
        tokenizer=None,
        cache=CacheShape.alike(n_layers=config.n_layers, n_heads=config.n_heads, head_dim=config.head_dim),
        torchscript=False,
        configuration=config.to_dict(),
    )


def random_model(i: int, seed: int) -> tuple[Source, dict[str, Any]]:
    """The `i`-th random source, and what it is in JSON values."""
    rng = np.random.default_rng((seed, i))
    config = random_config(rng)
    weight_spread = math.exp(rng.uniform(*map(math.log, SPREADS)))
    description = {key: value for key, value in config.to_dict().items() if key not in ("drop_rate", "vocab_size")}
    source = random_source(f"random-{i}", config, weight_spread, seed + i)
    return source, description | {"weight_spread": round(weight_spread, 4)}


def measure_model(which: int | str, seed: int) -> dict[str, Any]:
    """The figures of the `which`-th random model, or of a named source."""
    started = time.perf_counter()
    source, description = (
        (read_source(which), {"source": which}) if isinstance(which, str) else random_model(which, seed)
    )
    found = {"model": description} | measure(source)
    worst = max(found["cases"], key=lambda case: float(case["ratio_to_probe"]))
    print(
        f"{source.name:<12} {time.perf_counter() - started:5.1f} s  noise {found['noise']:.1e}  worst "
        f"{worst['ratio_to_probe']:6.2f} x probe ({worst['case']}, {worst['ratio_to_case']:.2f} x its own)  "
        f"{json.dumps(description)}",
        flush=True,
    )
    return found


def measure(source: Source) -> dict[str, Any]:
    """The probe's noise, and for each case of each target the difference in units of the probe's and its own noise."""
    config = ExportConfig(gate="report")
    with tempfile.TemporaryDirectory(prefix="gpt-export-bench-") as folder:
        artifact = export(source, config, Path(folder) / source.name)
        parity = json.loads((artifact.folder / "parity.json").read_text(encoding="utf-8"))
    own = {case.name: case_noise(source, case) for case in choose_cases(source, config.gate_settings, whole_text=False)}
    cases = [
        {
            "case": result["name"],
            "case_noise": own[result["name"]],
            "limit_source": result["limit_source"],
            "ratio_to_case": ratio(result, own[result["name"]]),
            "ratio_to_probe": ratio(result, parity["noise"]),
            "target": target,
        }
        for target, results in parity["cases"].items()
        for result in results
    ]
    return {"cases": cases, "noise": parity["noise"], "passed": parity["passed"]}


def case_noise(source: Source, case: Case) -> float:
    """Eager's own noise on the case: that of its worst row."""
    module = source.reference()
    return max(noise for row in case.rows() if (noise := measure_noise(module, row)) is not None)


def ratio(result: dict[str, Any], noise: float) -> float:
    """The case's largest difference over what one unit of noise is at the scale of its logits."""
    unit = max(noise, NOISE_FLOOR) * float(result["scale"])
    return significant(result["max_abs"] / unit) if unit else 0.0


def summary(values: Sequence[float]) -> dict[str, float]:
    """Count, quantiles and maximum."""
    found = {f"q{quantile:g}": significant(float(np.quantile(values, quantile))) for quantile in QUANTILES}
    return found | {"count": len(values), "max": max(values)}


def summaries(models: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The summaries that the factor is set from."""
    cases = [case for model in models for case in model["cases"]]
    return {
        "failed_models": sum(not model["passed"] for model in models),
        "limited_by": {
            source: sum(case["limit_source"] == source for case in cases)
            for source in sorted({case["limit_source"] for case in cases})
        },
        "noise": {"max": max(m["noise"] for m in models), "min": min(m["noise"] for m in models)},
        "ratio_to_case": summary([case["ratio_to_case"] for case in cases]),
        "ratio_to_probe": summary([case["ratio_to_probe"] for case in cases]),
        "worst_of_both": summary([min(case["ratio_to_case"], case["ratio_to_probe"]) for case in cases]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=50, help="random models besides the named sources")
    parser.add_argument("--named", nargs="*", default=NAMED, help="named sources to measure as well")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result")
    options = parser.parse_args()
    # A process each: TorchScript keeps the types of every model that it has seen.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
        chosen = [*range(options.models), *options.named]
        models = list(pool.map(measure_model, chosen, [options.seed] * len(chosen)))
    found = summaries(models)
    print(json.dumps(found, indent=1, sort_keys=True))
    print(f"wrote {write_record('noise', {'models': models, 'summary': found}, options.results)}")


if __name__ == "__main__":
    main()
