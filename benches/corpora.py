"""How fast a corpus is scored: beside `Session.logits` in the same run, by one and two workers, by Ray, and how long.

python -m benches.corpora ARTIFACT TEXT

Rounds alternate, so that what else the machine does meets all of them alike. A ratio of seconds is told beside one of
processor time, which a machine that is not quiet disturbs less.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from gpt_export.artifact.reading import Artifact
from gpt_export.runtime.session import Session
from gpt_export.runtime.tokenizing import open_tokenizer
from gpt_export.scoring import api
from gpt_export.scoring.scoring_work import Row, ScoringSetup
from gpt_export.scoring.settings import EngineSettings
from gpt_export.scoring.windows import Window
from numpy.typing import NDArray

from benches.record import RESULTS, write_record

NAME = "corpora"
FULL_BATCH = 4
"""Windows of a full batch in the loop of `Session.logits`."""
ENGINES = {
    "one worker, one thread": EngineSettings(workers=1, threads=1),
    "one worker, two threads": EngineSettings(workers=1, threads=2),
    "two workers, one thread each": EngineSettings(workers=2, threads=1),
    "two workers on Ray": EngineSettings(engine="ray", workers=2, threads=1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--variant", default="fp32")
    parser.add_argument("--windows", type=int, default=12, help="windows of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-engines", action="store_true", help="leave workers out")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result")
    options = parser.parse_args()
    ids = read_windows(options.artifact, options.text, options.windows)
    values: dict[str, Any] = {"windows": ids.shape[0], "window": ids.shape[1], "variant": options.variant}
    values["beside_logits"] = beside_logits(options.artifact, options.variant, ids, options.rounds)
    if not options.no_engines:
        values["engines"] = {
            name: by_engine(options.artifact, options.variant, ids, one) for name, one in ENGINES.items()
        }
    print(f"wrote {write_record(NAME, values, options.results)}")


def read_windows(artifact: Path, text: Path, count: int) -> NDArray[np.int64]:
    """The first windows of the text, int64 (count, context)."""
    opened = Artifact.open(artifact)
    length = int(opened.manifest.model["context_length"])
    tokenizer = open_tokenizer(artifact, opened.manifest)
    assert tokenizer is not None
    ids = tokenizer.encode(text.read_text(encoding="utf-8"))
    if len(ids) < count * length:
        sys.exit(f"{text} has {len(ids)} tokens, {count} windows have {count * length}; pass a longer text")
    return np.array(ids[: count * length], dtype=np.int64).reshape(count, length)


def beside_logits(artifact: Path, variant: str, ids: NDArray[np.int64], rounds: int) -> dict[str, Any]:
    """Tokens a second of both, by the clock and by the processor, with one thread: the medians of the rounds."""
    session = Session.open(artifact, variant=variant, verify=False, threads=1)
    work = ScoringSetup(artifact=artifact, variant=variant, threads=1).open()
    rows = [Row(document=0, window=Window(at, row.astype(np.int32), 1)) for at, row in enumerate(ids)]

    def logits() -> None:
        for at in range(0, len(ids), FULL_BATCH):
            session.logits(ids[at : at + FULL_BATCH])

    def score() -> None:
        for row in rows:
            work([row])

    found: dict[str, list[tuple[float, float]]] = {"logits": [], "score": []}
    for number, (name, run) in itertools.product(range(rounds + 1), (("logits", logits), ("score", score))):
        took = timed(run)
        if number:  # the first is to warm up
            found[name].append(took)
    speeds = {
        name: {
            "wall": ids.size / statistics.median(w for w, _ in each),
            "cpu": ids.size / statistics.median(c for _, c in each),
        }
        for name, each in found.items()
    }
    ratios = {kind: speeds["score"][kind] / speeds["logits"][kind] for kind in ("wall", "cpu")}
    print(f"score beside Session.logits: {ratios['wall']:.3f} x by the clock, {ratios['cpu']:.3f} x by the processor")
    return {"tokens_per_s": speeds, "ratio": ratios, "rounds": rounds}


def by_engine(artifact: Path, variant: str, ids: NDArray[np.int64], engine: EngineSettings) -> dict[str, float]:
    """Tokens a second, from the first result on; starting is told apart."""
    documents = [row.tolist() for row in itertools.chain.from_iterable(itertools.repeat(ids, 3))]
    began = time.perf_counter()
    marks: list[tuple[float, int]] = []
    scores = api.score(
        artifact,
        documents,
        engine=engine,
        variant=variant,
        on_progress=lambda known: marks.append((time.perf_counter(), known.tokens)),
    )
    list(scores)
    (first, before), (last, after) = marks[0], marks[-1]
    told = {"tokens_per_s": (after - before) / (last - first), "start_s": first - began}
    print(f"{engine.engine} {engine.workers} x {engine.threads}: {told['tokens_per_s']:.0f} tokens/s", flush=True)
    return told


def timed(run: Callable[[], None]) -> tuple[float, float]:
    """Seconds by the clock, and of this process on the processor."""
    wall, cpu = time.perf_counter(), _cpu_s()
    run()
    return time.perf_counter() - wall, _cpu_s() - cpu


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
