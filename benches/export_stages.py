"""Wall time and peak memory of every stage of an export, beside the interpreter with torch imported.

Each run is a process of its own that tells when a stage begins; this one reads its memory every few milliseconds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benches.memory import Sample, memory_of, run
from benches.record import RESULTS, spread, write_record

SOURCES = ("dummy-124m", "gpt2-124m")
GRAPHS = ("dummy-124m", "gpt2-124m", "gpt2-1558m")
GRAPH_STAGES = ("script", "graph", "passes")
TORCH = "import torch"
READY = "import gpt_export"
"""The stage at whose beginning the interpreter, with torch imported, is taken as the baseline."""
END = "end"
MB = 1e6
TARGET_S = 1.5
TARGET_MB = 100.0
"""What script, graph and passes may take together, and add to the baseline."""


class Stopwatch:
    """An `OnStage` that keeps when each stage began, and the memory then."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def __call__(self, stage: str) -> None:
        memory = memory_of("self")
        # "5" resets the peak of RSS (VmHWM), so that each stage has its own.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self.events.append({"stage": stage, "at": time.monotonic(), **memory})


def export_child(name: str, output: Path) -> list[dict[str, Any]]:
    """Exports a source in this process; what its stopwatch kept."""
    stopwatch = Stopwatch()
    stopwatch(TORCH)
    import torch  # noqa: F401

    stopwatch(READY)
    from gpt_export.pipeline.config import ExportConfig
    from gpt_export.pipeline.stages import export
    from gpt_export.sources.names import read_source

    stopwatch("read the source")
    export(read_source(name), ExportConfig(), output, on_stage=stopwatch)
    stopwatch(END)
    return stopwatch.events


def graph_child(name: str) -> list[dict[str, Any]]:
    """Makes the graph of a known source in this process, which never sees a weight; what its stopwatch kept."""
    stopwatch = Stopwatch()
    stopwatch(TORCH)
    import torch  # noqa: F401

    stopwatch(READY)
    from gpt_export.graph.opsets import DEFAULT_OPSET
    from gpt_export.graph.script import script, script_cached
    from gpt_export.graph.to_onnx import to_onnx
    from gpt_export.passes import portable_passes, run_passes
    from gpt_export.runtime.signature import CacheShape, Head, cached, example_sizes, uncached
    from gpt_export.sources.gpt import GPT2_SIZES
    from gpt_export_models.blank import blank
    from gpt_export_models.config import GPT_CONFIG_124M, GPTConfig
    from gpt_export_models.dummy import DummyGPTModel
    from gpt_export_models.gpt import GPTDecoder

    stopwatch("build without weights")
    sizes = GPT2_SIZES.get(name, {})
    config = GPTConfig.from_dict(GPT_CONFIG_124M | sizes)
    cache = CacheShape.alike(n_layers=config.n_layers, n_heads=config.n_heads, head_dim=config.head_dim)
    signature = cached(config.vocab_size, cache) if sizes else uncached(Head(width=config.vocab_size))
    skeleton = blank(lambda: GPTDecoder(config) if sizes else DummyGPTModel(config))
    stopwatch("script")
    scripted = script_cached(skeleton, config.n_layers) if sizes else script(skeleton)
    stopwatch("graph")
    model = to_onnx(scripted, signature, DEFAULT_OPSET, example_sizes(config.context_length), "meta")
    stopwatch("passes")
    run_passes(model, portable_passes({weight: weight for weight in skeleton.state_dict()}))
    stopwatch(END)
    return stopwatch.events


def measure(*arguments: str | Path) -> dict[str, Any]:
    """One run of a child: seconds, and peak megabytes above the baseline, of each stage and of some together."""
    measured = run([sys.executable, "-m", "benches.export_stages", *arguments])
    if measured.exit_code:
        raise SystemExit(f"{' '.join(map(str, arguments))} failed:\n{measured.stderr}")
    events = json.loads(measured.stdout)
    base = next(event for event in events if event["stage"] == READY)
    stages = {
        event["stage"]: _stage(event, following, base, measured.samples)
        for event, following in itertools.pairwise(events)
        if event["stage"] != TORCH
    }
    begun = next(event for event in events if event["stage"] == GRAPH_STAGES[0])
    graph = [stages[name] for name in GRAPH_STAGES]
    together = {key: max(stage[key] for stage in graph) for key in ("anon_mb", "rss_mb")}
    return {
        "base": {"anon_mb": base["anon"] / MB, "rss_mb": base["rss"] / MB, "seconds": base["at"] - events[0]["at"]},
        "stages": stages,
        "together": together
        | {
            "own_anon_mb": together["anon_mb"] - (begun["anon"] - base["anon"]) / MB,
            "own_rss_mb": together["rss_mb"] - (begun["rss"] - base["rss"]) / MB,
            "seconds": sum(stage["seconds"] for stage in graph),
        },
        "total_seconds": measured.wall_s,
    }


def _stage(
    event: dict[str, Any], following: dict[str, Any], base: dict[str, Any], samples: Sequence[Sample]
) -> dict[str, float]:
    anon = [sample.anon for sample in samples if event["at"] <= sample.at <= following["at"]]
    return {
        "anon_mb": (max(event["anon"], following["anon"], *anon) - base["anon"]) / MB,
        "rss_mb": (following["peak_rss"] - base["rss"]) / MB,
        "seconds": following["at"] - event["at"],
    }


def summarise(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The same nesting as each run, with the spread of each figure; stages as a list, in their order."""

    def merged(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {
            key: merged([part[key] for part in parts])
            if isinstance(parts[0][key], dict)
            else spread([part[key] for part in parts])
            for key in parts[0]
        }

    found = merged(runs)
    stages = [{"stage": name} | figures for name, figures in found.pop("stages").items()]
    return found | {"runs": len(runs), "stages": stages}


def verdict(graph: dict[str, Any]) -> dict[str, Any]:
    """Script, graph and passes of the skeleton beside their target."""
    seconds, added = graph["together"]["seconds"]["median"], graph["together"]["anon_mb"]["median"]
    return {"met": seconds < TARGET_S and added < TARGET_MB, "target_mb": TARGET_MB, "target_seconds": TARGET_S}


def show(name: str, found: dict[str, Any]) -> None:
    """The medians as a table."""
    base = {key: value["median"] for key, value in found["base"].items()}
    print(f"\n{name}: torch imported {base['anon_mb']:.0f} MB anonymous, {base['rss_mb']:.0f} MB RSS; above that")
    print(f"{'stage':<22} {'s':>7} {'anon MB':>9} {'RSS MB':>9}")
    for stage in (*found["stages"], found["together"] | {"stage": " + ".join(GRAPH_STAGES)}):
        figures = [stage[key]["median"] for key in ("seconds", "anon_mb", "rss_mb")]
        print(f"{stage['stage']:<22} {figures[0]:7.2f} {figures[1]:9.0f} {figures[2]:9.0f}")
    own = found["together"]["own_anon_mb"]["median"]
    print(f"of which {own:.0f} MB anonymous are above the level when {GRAPH_STAGES[0]} begins")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", default=",".join(SOURCES), help="exported whole: names or paths, with commas")
    parser.add_argument("--graphs", default=",".join(GRAPHS), help="known names of which the graph alone is made")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result")
    parser.add_argument("--export-child", nargs=2, metavar=("SOURCE", "OUTPUT"), help=argparse.SUPPRESS)
    parser.add_argument("--graph-child", metavar="NAME", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.export_child:
        print(json.dumps(export_child(options.export_child[0], Path(options.export_child[1]))))
        return
    if options.graph_child:
        print(json.dumps(graph_child(options.graph_child)))
        return
    exports = {name: [] for name in options.sources.split(",")}
    graphs: dict[str, list[dict[str, Any]]] = {name: [] for name in options.graphs.split(",")}
    for turn in range(options.repeats):
        for name, runs in graphs.items():
            runs.append(measure("--graph-child", name))
        for name, runs in exports.items():
            with tempfile.TemporaryDirectory(prefix="gpt-export-bench-") as folder:
                runs.append(measure("--export-child", name, Path(folder) / "artifact"))
        print(f"run {turn + 1} of {options.repeats} done", file=sys.stderr)
    values = {
        "exports": {Path(name).name: summarise(runs) for name, runs in exports.items()},
        "graphs": {name: summarise(runs) for name, runs in graphs.items()},
    }
    for kind, found in values.items():
        for name, figures in found.items():
            show(f"{kind}: {name}", figures)
    values["target"] = verdict(next(iter(values["graphs"].values())))
    print(f"\ntarget {'met' if values['target']['met'] else 'MISSED'}: {json.dumps(values['target'])}")
    print(f"wrote {write_record('export-stages', values, options.results)}")


if __name__ == "__main__":
    main()
