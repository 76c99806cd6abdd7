"""Decoders side by side on one model of random weights: every variant of our artifact, and the peers.

PyTorch eager, Optimum, CTranslate2, OpenVINO GenAI, llama.cpp and, for a family that its builder takes,
onnxruntime-genai, each in a process of its own in the environment of its library, alive for the whole run; one computes
at a time, with the same ids and number of threads. Environments and converted files are made when they are not there.
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import Any

from gpt_export.artifact.reading import Artifact
from gpt_export.bench.bandwidth import measure_bandwidth
from gpt_export.bench.bytes_read import bytes_per_token

from benches.decoding.client import Worker, WorkerError
from benches.decoding.environments import genai_python, llama_python, openvino_python, optimum_python, versions
from benches.decoding.files import Files
from benches.decoding.roster import Entrant, chosen, ours, peers
from benches.decoding.rounds import run_rounds, summarise
from benches.memory import memory_of
from benches.peers import CACHE, SIZES, checkpoint, describe
from benches.record import RESULTS, write_record

NAME = "decode"
USUAL = "124m"
"""The size whose result is `decode.json`; that of another is `decode-<size>.json`."""
THREADS = 2
BANDWIDTHS = 2
"""Times that the bandwidth is measured: before the workers start and after they end."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4, help="counted rounds; one more warms up")
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--size", default=USUAL, choices=SIZES, help="the model whose random weights are decoded with")
    parser.add_argument("--artifact", type=Path, help="ours to measure.  [default: an export of the same checkpoint]")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="the beginning of a name; repeatable"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result")
    options = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    files = Files(checkpoint(options.size))
    artifact = options.artifact or files.artifact()
    entrants = chosen([*ours(artifact), *peers(files)], options.only)
    bandwidths = [measure_bandwidth(options.threads)]
    found = compare(entrants, options.rounds, options.threads, vocabulary_of(artifact))
    bandwidths.append(measure_bandwidth(options.threads))
    values = {
        "bandwidth": max(bandwidths, key=lambda one: float(one["gb_s"])),
        "entrants": found,
        "model": describe(options.size),
        "peers": peer_versions(entrants),
        "rounds": options.rounds,
        "threads": options.threads,
        "weights_mb": weights_mb(artifact),
    }
    name = NAME if options.size == USUAL else f"{NAME}-{options.size}"
    print(f"wrote {write_record(name, values, options.results)}")


def compare(entrants: list[Entrant], rounds: int, threads: int, vocabulary: int) -> dict[str, dict[str, Any]]:
    """By name: `precision`, `load_s`, memory, the spread of every figure, and `failure` where there is one."""
    found: dict[str, dict[str, Any]] = {}
    commands = {one.name: one.command(threads) for one in entrants}  # converts before anything is measured
    with contextlib.ExitStack() as stack:
        workers = []
        for one in entrants:
            found[one.name] = {"precision": one.precision}
            try:
                workers.append(stack.enter_context(Worker(one.name, commands[one.name], threads)))
            except WorkerError as error:
                found[one.name]["failure"] = str(error)
        figures, failures = run_rounds(workers, rounds, vocabulary)
        for worker in workers:
            memory = memory_of(worker.pid)
            found[worker.name] |= {
                "anon_mb": round(memory["anon"] / 1e6, 1),
                "figures": summarise(figures[worker.name]),
                "load_s": round(worker.load_s, 3),
                "peak_rss_mb": round(memory["peak_rss"] / 1e6, 1),
            }
            if worker.name in failures:
                found[worker.name]["failure"] = failures[worker.name]
    for name, values in found.items():
        told = {figure: spread["median"] for figure, spread in values.get("figures", {}).items()}
        print(name, told, values.get("failure", ""))
    return found


def vocabulary_of(artifact: Path) -> int:
    """How many ids there are to draw prompts from."""
    return int(Artifact.open(artifact).manifest.model["vocab_size"])


def weights_mb(artifact: Path) -> dict[str, float]:
    """Of each variant of ours, 10^6 bytes of weights that a token reads, counted from its graph."""
    opened = Artifact.open(artifact)
    return {
        variant: round(bytes_per_token(opened.variant_path(variant)) / 1e6, 3) for variant in opened.manifest.variants
    }


def peer_versions(entrants: list[Entrant]) -> dict[str, str]:
    """The versions of the libraries whose engines took part."""
    engines = {one.engine for one in entrants}
    found: dict[str, str] = {}
    if engines & {"eager", "optimum"}:
        found |= versions(optimum_python(), "optimum-onnx", "torch", "transformers")
    if engines & {"openvino", "ctranslate"}:
        found |= versions(openvino_python(), "ctranslate2", "nncf", "openvino-genai", "optimum-intel")
    if "genai" in engines:
        found |= versions(genai_python(), "onnxruntime-genai")
    if "llama" in engines:
        found |= versions(llama_python(), "llama-cpp-python")
    return found


if __name__ == "__main__":
    main()
