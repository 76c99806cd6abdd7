"""Time and memory from a module to its ONNX graph: by script, by torch.export, and by torch's own exporter.

The module is the decoder of this package at GPT-2's sizes, on the meta device, so that no way holds a weight. Each run
is a process of its own, and its memory is that of the whole process.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benches.memory import run
from benches.record import RESULTS, spread, write_record

SIZES = {"12 layers of 768": (12, 12, 768), "48 layers of 1600": (48, 25, 1600)}
"""GPT-2's smallest and largest: layers, heads, width."""
VOCAB, CONTEXT = 50257, 1024
LIMIT_MB = 1000.0
"""What a graph may take of memory, by either road of ours."""
MB = 1e6
SLOWEST_RUNS = 1
"""How often torch's own exporter is run: it takes minutes."""


def by_script(module: Any) -> int:
    """The nodes of the graph by way of `torch.jit.script`."""
    from gpt_export.graph.opsets import DEFAULT_OPSET
    from gpt_export.graph.script import script
    from gpt_export.graph.to_onnx import to_onnx
    from gpt_export.runtime.signature import Head, example_sizes, uncached

    return len(
        to_onnx(script(module), uncached(Head(width=VOCAB)), DEFAULT_OPSET, example_sizes(CONTEXT), "meta").graph
    )


def by_export(module: Any) -> int:
    """The nodes of the graph by way of `torch.export`."""
    from gpt_export.graph.opsets import DEFAULT_OPSET
    from gpt_export.graph.torch_export import export_to_onnx
    from gpt_export.runtime.signature import Head, example_sizes, uncached

    sizes = example_sizes(CONTEXT)
    return len(export_to_onnx(module, uncached(Head(width=VOCAB)), DEFAULT_OPSET, sizes, "meta", CONTEXT).graph)


def by_torch(module: Any) -> int:
    """The nodes of the graph that `torch.onnx.export` gives by itself, unoptimised, as the roads' are before passes."""
    import torch
    from gpt_export.graph.opsets import DEFAULT_OPSET

    ids = torch.zeros((2, 3), dtype=torch.int64, device="meta")
    dims = ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},)
    with torch.no_grad():
        program = torch.onnx.export(
            module,
            (ids,),
            dynamo=True,
            dynamic_shapes=dims,
            opset_version=DEFAULT_OPSET,
            optimize=False,
            verbose=False,
        )
    assert program is not None
    return len(program.model.graph)


WAYS: dict[str, Callable[[Any], int]] = {
    "script": by_script,
    "torch.export": by_export,
    "torch.onnx.export": by_torch,
}


def child(size: str, way: str) -> dict[str, float]:
    """Makes one graph in this process: seconds behind the imports, and nodes."""
    import torch
    from gpt_export_models.gpt import GPTModel

    layers, heads, width = SIZES[size]
    config = {"vocab_size": VOCAB, "context_length": CONTEXT, "emb_dim": width, "n_heads": heads, "n_layers": layers}
    with torch.device("meta"):
        module = GPTModel(config | {"drop_rate": 0.0, "qkv_bias": True}).eval()
    started = time.monotonic()
    nodes = WAYS[way](module)
    return {"nodes": nodes, "seconds": time.monotonic() - started}


def measure(size: str, way: str) -> dict[str, float]:
    """One run of a child: seconds, nodes, and the peak of its memory in megabytes."""
    measured = run([sys.executable, "-m", "benches.roads", "--child", size, way])
    if measured.exit_code:
        raise SystemExit(f"{way} of {size} failed:\n{measured.stderr}")
    found: dict[str, float] = json.loads(measured.stdout.splitlines()[-1])
    return found | {"anon_mb": measured.peak_anon / MB, "rss_mb": measured.peak_rss / MB}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result")
    parser.add_argument("--child", nargs=2, metavar=("SIZE", "WAY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(*options.child)))
        return
    sizes: dict[str, dict[str, Any]] = {}
    for size in SIZES:
        sizes[size] = {}
        for way in WAYS:
            repeats = SLOWEST_RUNS if way == "torch.onnx.export" else options.repeats
            runs = [measure(size, way) for _ in range(repeats)]
            figures = {key: spread([one[key] for one in runs]) for key in ("seconds", "rss_mb", "anon_mb")}
            sizes[size][way] = figures | {"nodes": int(runs[0]["nodes"]), "runs": repeats}
            print(f"{size}, {way}: {json.dumps(sizes[size][way])}", file=sys.stderr)
    largest = max(sizes[size][way]["rss_mb"]["max"] for size in SIZES for way in ("script", "torch.export"))
    target = {"largest_mb": round(largest, 1), "limit_mb": LIMIT_MB, "met": largest < LIMIT_MB}
    print(f"wrote {write_record('roads', {'sizes': sizes, 'target': target}, options.results)}")


if __name__ == "__main__":
    main()
