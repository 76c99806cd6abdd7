"""Two Ray nodes on this machine's loopback, one killed in the middle: the figures are those of one process.

python -m benches.cluster ARTIFACT TEXT [--variant V]

The nodes are two raylets with a head of their own, one worker each, and their own folders for what they fetch; the
artifact is shipped to both. When a third of the text is scored, the second node is killed with SIGKILL, its workers
with it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gpt_export.artifact.reading import Artifact
from gpt_export.errors import GptExportError
from gpt_export.scoring import extras
from gpt_export.scoring.api import Scores
from gpt_export.scoring.inputs import open_corpus
from gpt_export.scoring.progress import Progress
from gpt_export.scoring.settings import EngineSettings, ScoreSettings

LOOPBACK = "127.0.0.1"
KILL_AT = 1 / 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("text", help="a file, a folder or a glob")
    parser.add_argument("--variant", default="fp32")
    parser.add_argument("--part-tokens", type=int, default=1 << 12)
    options = parser.parse_args()
    try:
        extras.ray("make cluster")
        run(options.artifact, options.text, options.variant, options.part_tokens)
    except GptExportError as error:
        raise SystemExit(f"Error: {error}") from error


def run(artifact: Path, text: str, variant: str, part_tokens: int) -> None:
    """Scores the text by one process and by two nodes.

    Raises:
        SystemExit: the figures differ, or no node was killed.
    """
    corpus = open_corpus([text])
    settings = ScoreSettings(variant=variant, whole_windows=True, part_tokens=part_tokens)

    def score(engine: EngineSettings, on_progress: Any) -> dict[str, Any]:
        began = time.monotonic()
        scores = Scores(
            Artifact.open(artifact), corpus, settings, engine, total_bytes=corpus.size_bytes, on_progress=on_progress
        )
        list(scores)
        found = scores.summary()
        seconds = time.monotonic() - began
        print(
            f"{engine.engine:<6} perplexity {found['perplexity']:.6f}, nll {found['nll']!r}, {seconds:.1f} s",
            flush=True,
        )
        return found

    alone = score(EngineSettings(engine="local", workers=1), lambda _: None)
    with tempfile.TemporaryDirectory(prefix="gpt-export-cluster-") as folder:
        os.environ["GPT_EXPORT_CACHE"] = folder
        together, killed = _on_two_nodes(score)
    if not killed:
        raise SystemExit("Error: no node was killed, the text is too short; pass a longer one")
    if together != alone:
        raise SystemExit("Error: the figures of the two nodes are not those of the one process")
    print("equal, with one of two nodes killed in the middle")


def _on_two_nodes(score: Any) -> tuple[dict[str, Any], list[int]]:
    """The figures of two nodes, and the processes of the one that was killed."""
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "node_ip_address": LOOPBACK, "object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    killed: list[int] = []
    try:
        second = cluster.add_node(**small)
        cluster.wait_for_nodes()

        def on_progress(known: Progress) -> None:
            if not killed and (known.fraction or 0) >= KILL_AT:
                killed.append(second.all_processes["raylet"][0].process.pid)
                os.kill(killed[0], signal.SIGKILL)
                print(f"killed one of two nodes at {known.fraction:.0%}", file=sys.stderr, flush=True)

        engine = EngineSettings(engine="ray", address=cluster.address, workers=2, threads=1, ship=True)
        return score(engine, on_progress), killed
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
