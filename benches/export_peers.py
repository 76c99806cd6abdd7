"""Exports of one checkpoint side by side: `gpt-export` with and without its gate, Optimum, and a plain copy.

Wall time from start to exit, peak memory of the whole process tree, and the size of what was written. The order
alternates from turn to turn, every run starts with the same state of the page cache (the checkpoint read, nothing
waiting to be written), and a run that passes the memory limit is killed and counted as failed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benches.memory import Measured, run
from benches.peers import CACHE, SIZES, checkpoint, describe, folder_bytes, peer_versions, peers_python
from benches.record import RESULTS, spread, write_record

GATED, UNGATED, OPTIMUM, COPY = "gpt-export", "gpt-export --gate off", "optimum-cli", "cp"
MB = 1e6
LIMIT_GB = 20.0
REPEATS = {"1558m": 2}
"""Turns of the large sizes; the others take `--repeats`."""
TREE_INTERVAL_S = 0.01
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
FIGURES = ("wall_s", "peak_anon_mb", "peak_rss_mb")
Runs = Mapping[str, Sequence[dict[str, Any]]]


def commands(source: Path, output: Path, peers: Path | None) -> dict[str, list[str | Path]]:
    """By name, what is run to bring `source` to `output`."""
    ours: list[str | Path] = [Path(sys.executable).with_name("gpt-export"), "onnx", source, "--output", output]
    found: dict[str, list[str | Path]] = {
        COPY: ["cp", "--recursive", "--reflink=never", source, output],
        UNGATED: [*ours, "--gate", "off"],
        GATED: ours,
    }
    if peers:
        task = ["--task", "text-generation-with-past", "--model", source]
        found[OPTIMUM] = [peers.with_name("optimum-cli"), "export", "onnx", *task, output]
    return found


def measure(command: Sequence[str | Path], source: Path, output: Path, limit_bytes: int) -> dict[str, Any]:
    """One run in JSON values; its output is deleted."""
    read(source)
    os.sync()
    measured = run(command, environment=OFFLINE, limit_bytes=limit_bytes, interval_s=TREE_INTERVAL_S)
    size = folder_bytes(output) if output.exists() else 0
    started = time.monotonic()
    os.sync()
    flush_s = time.monotonic() - started
    shutil.rmtree(output, ignore_errors=True)
    return {
        "exit_code": measured.exit_code,
        "failure": failure(measured, limit_bytes),
        "flush_s": round(flush_s, 2),
        "output_mb": round(size / MB, 1),
        "peak_anon_mb": round(measured.peak_anon / MB, 1),
        "peak_rss_mb": round(measured.peak_rss / MB, 1),
        "wall_s": round(measured.wall_s, 3),
    }


def failure(measured: Measured, limit_bytes: int) -> str:
    """Why the run failed, in a few words; empty if it did not."""
    if measured.stopped:
        return f"killed at {limit_bytes / 1e9:g} GB of memory"
    if measured.exit_code:
        lines = [line for line in measured.stderr.splitlines() if line.strip()]
        print("\n".join(lines[-5:]), file=sys.stderr)
        return f"exit code {measured.exit_code}"
    return ""


def read(folder: Path) -> None:
    """Brings the files of `folder` into the page cache, so that no run pays for reading the disk."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                while file.read(16 * 1024 * 1024):
                    pass


def compare(size: str, repeats: int, peers: Path | None, limit_bytes: int, scratch: Path | None) -> dict[str, Any]:
    """All commands on one size, in JSON values."""
    source = checkpoint(size)
    runs: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="gpt-export-bench-", dir=scratch) as folder:
        output = Path(folder) / "out"
        for turn in range(repeats):
            chosen = list(commands(source, output, peers).items())
            for name, command in chosen if turn % 2 == 0 else chosen[::-1]:
                if any(past["failure"] for past in runs.get(name, [])):
                    continue  # it fails again, after minutes
                found = measure(command, source, output, limit_bytes)
                runs.setdefault(name, []).append(found)
                show(size, name, found)
    return {
        "checkpoint_mb": round(folder_bytes(source) / MB, 1),
        "model": describe(size),
        "ratios": ratios(runs),
        "runs": runs,
        "tools": {name: tool(found) for name, found in sorted(runs.items())},
    }


def tool(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The spread of a tool's figures, or those of its failure."""
    failures = sorted({one["failure"] for one in runs if one["failure"]})
    figures = {key: spread([one[key] for one in runs]) for key in (*FIGURES, "output_mb")}
    return figures | {"failure": "; ".join(failures), "runs": len(runs)}


def ratios(runs: Runs) -> dict[str, dict[str, float]]:
    """Medians over the turns of ours to Optimum, and of ours without gate to the copy."""
    found = {}
    for ours, theirs, keys in ((GATED, OPTIMUM, FIGURES), (UNGATED, COPY, FIGURES[:1])):
        pairs = [
            pair
            for pair in zip(runs.get(ours, ()), runs.get(theirs, ()), strict=False)
            if not pair[0]["failure"] and not pair[1]["failure"]
        ]
        if pairs:
            found[f"{ours} / {theirs}"] = {
                key: round(statistics.median(a[key] / max(b[key], 0.001) for a, b in pairs), 3) for key in keys
            }
    return found


def targets(sizes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was to be reached, what was found, and whether it is enough."""
    found: list[dict[str, Any]] = []

    def add(what: str, value: float, limit: float, unit: str) -> None:
        found.append({"limit": round(limit, 2), "met": value <= limit, "unit": unit, "value": value, "what": what})

    if ratio := sizes.get("124m", {}).get("ratios", {}).get(f"{GATED} / {OPTIMUM}"):
        add("124M, default gate: time beside Optimum", ratio["wall_s"], 0.5, "x")
        add("124M, default gate: peak RSS beside Optimum", ratio["peak_rss_mb"], 0.5, "x")
        add("124M, default gate: peak anonymous memory beside Optimum", ratio["peak_anon_mb"], 0.5, "x")
    if large := sizes.get("1558m", {}).get("tools"):
        copy, gated, ungated = large[COPY], large[GATED], large[UNGATED]
        add("1.5B, default gate: peak RSS", gated["peak_rss_mb"]["max"] / 1000, 8, "GB")
        allowed_s = 1.5 * copy["wall_s"]["median"] + 10
        add("1.5B, no gate: time, beside 1.5 x cp + 10 s", ungated["wall_s"]["median"], allowed_s, "s")
        add("1.5B, no gate: peak anonymous memory", ungated["peak_anon_mb"]["max"] / 1000, 0.8, "GB")
    return found


def show(size: str, name: str, one: dict[str, Any]) -> None:
    print(
        f"{size:>6} {name:<22} {one['wall_s']:8.2f} s {one['peak_rss_mb']:9.0f} MB RSS "
        f"{one['peak_anon_mb']:9.0f} MB anonymous {one['output_mb']:8.0f} MB written  {one['failure']}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="124m,1558m", help=f"with commas, of {', '.join(SIZES)}")
    parser.add_argument("--repeats", type=int, default=5, help="turns; at 1558m two, or fewer if this is fewer")
    parser.add_argument("--skip-peers", action="store_true", help="leave Optimum out")
    parser.add_argument("--peers-at", help="sizes at which Optimum runs too.  [default: all]")
    parser.add_argument("--limit-gb", type=float, default=LIMIT_GB, help="kill what takes more memory than this")
    parser.add_argument("--scratch", type=Path, help="where outputs are written for a while")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result")
    options = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    peers = None if options.skip_peers else peers_python()
    sizes = {}
    for size in options.sizes.split(","):
        repeats = min(options.repeats, REPEATS.get(size, options.repeats))
        beside = peers if size in (options.peers_at or options.sizes).split(",") else None
        sizes[size] = compare(size, repeats, beside, int(options.limit_gb * 1e9), options.scratch)
        values = {
            "limit_gb": options.limit_gb,
            "peers": peer_versions(peers) if peers else {},
            "sizes": sizes,
            "targets": targets(sizes),
        }
        written = write_record("export-peers", values, options.results)  # a long run that is ended leaves what it has
    for target in values["targets"]:
        verdict = "met   " if target["met"] else "MISSED"
        print(f"{verdict} {target['what']}: {target['value']:.2f} {target['unit']}, to reach {target['limit']:g}")
    print(f"wrote {written}")


if __name__ == "__main__":
    main()
