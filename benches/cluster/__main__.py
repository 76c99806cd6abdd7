"""Two Ray nodes on this machine's loopback, one killed in the middle: the figures are those of one process.

python -m benches.cluster ARTIFACT TEXT [--variant V]

The nodes are two raylets with a head of their own, one worker each, and their own folders for what they fetch; the
artifact is shipped to both. When a third of the text is scored, the second node is killed with SIGKILL, its workers
with it.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
START_S, SETTLE_S = 60.0, 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("text", help="a file, a folder or a glob")
    parser.add_argument("--variant", default="fp32")
    parser.add_argument("--part-tokens", type=int, default=1 << 12)
    options = parser.parse_args()
    try:
        extras.needs("ray", "make cluster", "ray")
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
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}  # nobody else joins this cluster
    address, killed = f"{LOOPBACK}:{_free_port()}", list[int]()
    with node("--head", f"--port={address.rpartition(':')[2]}"), node(f"--address={address}") as second:

        def on_progress(known: Progress) -> None:
            if not killed and (known.fraction or 0) >= KILL_AT:
                killed.extend(descendants(second.pid))
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)
                print(f"killed one of two nodes at {known.fraction:.0%}", file=sys.stderr, flush=True)

        engine = EngineSettings(engine="ray", address=address, workers=2, threads=1, ship=True)
        return score(engine, on_progress), killed


@contextmanager
def node(*options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Ray node of one core on loopback, ended with everything that it started."""
    fixed = [f"--node-ip-address={LOOPBACK}", "--num-cpus=1", "--object-store-memory=80000000", "--block"]
    head = ["--include-dashboard=false", "--disable-usage-stats"] if "--head" in options else []
    command = [str(Path(sys.executable).with_name("ray")), "start", *options, *head, *fixed]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        if not _has_started(process.pid):
            raise SystemExit(f"Error: the node did not start: {' '.join(command)}")
        yield process
    finally:
        for pid in [*descendants(process.pid), process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and theirs."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = [child for child, parent in parents.items() if parent == pid]
    return [*found, *(further for child in found for further in descendants(child))]


def _has_started(pid: int) -> bool:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        names = []
        for child in descendants(pid):
            with suppress(OSError):
                names.append(Path(f"/proc/{child}/comm").read_text().strip())
        if any(name.startswith("raylet") for name in names):
            time.sleep(SETTLE_S)
            return True
        time.sleep(0.2)
    return False


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        return int(taken.getsockname()[1])


if __name__ == "__main__":
    main()
