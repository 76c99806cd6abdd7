"""What a cache of 8 bits costs and brings: perplexity, prompts and steps, beside the same files with a float cache.

python -m benches.small_cache ARTIFACT TEXT

The artifact has both caches: `gpt-export onnx CHECKPOINT --precision fp32,int8,int4 --kv-cache fp32,int8`. Perplexity
is that of TEXT in windows of the context, each fed in two pieces so that most positions read what was rounded. For
times, both files of a precision are run in turn, round by round, in one process and on one thread, and the figure is
the median of the rounds' ratios of the processor's time, so that whatever else the machine does meets both, and little.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
from gpt_export.artifact.reading import Artifact
from gpt_export.runtime.decoding import Past
from gpt_export.runtime.session import Session
from gpt_export.runtime.shared_cache import SharedDecoding
from numpy.typing import NDArray

from benches.quality import read_ids, windows
from benches.record import RESULTS, significant, write_record

NAME = "small-cache"
STEPS = 8
"""Tokens of one round."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path, help="in every precision with both caches, its tokenizer beside it")
    parser.add_argument("text", type=Path, help="UTF-8 that the model was not trained on")
    parser.add_argument("--windows", type=int, help="score the first so many.  [default: all]")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result")
    options = parser.parse_args()
    manifest = Artifact.open(options.artifact).manifest
    names = [name for name in manifest.variants if f"{name}-kv8" in manifest.variants]
    speed = {name: ratios(options.artifact, name, options.rounds) for name in names}
    context = int(manifest.model["context_length"])
    ids = windows(read_ids(options.artifact, options.text), context)[: options.windows]
    quality = {
        name: perplexity(Session.open(options.artifact, variant=name, verify=False, threads=1), ids)
        for name in (*names, *(f"{name}-kv8" for name in names))
    }
    values = {
        "perplexity": quality,
        "tokens": int(ids.size),
        "window": context,
        "speed": speed,
        "rounds": options.rounds,
        "cache": manifest.variants[names[0]]["cache"],
    }
    print(f"wrote {write_record(NAME, values, options.results)}")


def perplexity(session: Session, rows: NDArray[np.int64]) -> float:
    """Over all rows, the first token of each not scored."""
    nats, cut = 0.0, rows.shape[1] // 4
    for row in rows[:, None]:
        decoding, mask = session.decoding(1), np.ones_like(row)
        parts = [decoding.feed(row[:, a:b], mask[:, a:b]) for a, b in ((0, cut), (cut, row.shape[1]))]
        logits = np.concatenate(parts, axis=1)[0, :-1].astype(np.float64)
        logits -= logits.max(axis=-1, keepdims=True)
        nats += float(np.log(np.exp(logits).sum(axis=-1)).sum() - logits[np.arange(len(logits)), row[0, 1:]].sum())
    found = math.exp(nats / (rows.size - len(rows)))
    print(f"{session.variant:<10} perplexity {found:.4f}", flush=True)
    return found


def ratios(folder: Path, precision: str, rounds: int) -> dict[str, Any]:
    """By what was run, the time with a cache of 8 bits as a share of that with floats: `median`, `min` and `max`."""
    pair = [Session.open(folder, variant=name, verify=False, threads=1) for name in (precision, f"{precision}-kv8")]
    context = pair[0].context_length
    kinds: dict[str, Callable[[Session], float]] = {
        "a step behind 32 tokens": lambda session: steps(session, 1, 32),
        "a step behind 128 tokens": lambda session: steps(session, 1, 128),
        f"a step behind {context - 2 * STEPS} tokens": lambda session: steps(session, 1, context - 2 * STEPS),
        "a step of 16 rows behind 128 tokens": lambda session: steps(session, 16, 128),
        f"a prompt of {context // 2} tokens": lambda session: prompt(session, context // 2),
    }
    found: dict[str, Any] = {}
    for what, run in kinds.items():
        for session in pair:
            run(session)  # the first one allocates
        times = [[run(session) for session in pair] for _ in range(rounds)]
        shares = [small / plain for plain, small in times]
        found[what] = {
            "median": significant(statistics.median(shares)),
            "min": significant(min(shares)),
            "max": significant(max(shares)),
        }
        print(f"{precision:<5} {what}: {found[what]['median']:.2f}", flush=True)
    return found


def steps(session: Session, rows: int, past: int) -> float:
    """Seconds of `STEPS` steps behind a past of so many tokens, which is drawn and not computed."""
    decoding, rng = cast(SharedDecoding, session.decoding(rows)), np.random.default_rng(0)
    empty = decoding.past().arrays
    arrays = [
        (rng.normal(size=(rows, each.shape[1], past, each.shape[3])) * (40 if each.dtype == np.int8 else 1)).astype(
            each.dtype
        )
        for each in empty
    ]
    decoding.resume(Past(np.ones((rows, past), np.int64), arrays))
    ids = rng.integers(0, session.vocab_size, (STEPS + 1, rows, 1))
    decoding.feed_for_last(ids[STEPS], np.ones((rows, 1), np.int64))
    started = time.process_time()
    for each in ids[:STEPS]:
        decoding.feed_for_last(each, np.ones((rows, 1), np.int64))
    return time.process_time() - started


def prompt(session: Session, length: int) -> float:
    """Seconds from a prompt to the scores of the token behind it."""
    ids = np.random.default_rng(0).integers(0, session.vocab_size, (1, length))
    started = time.process_time()
    session.decoding(1).feed_for_last(ids, np.ones_like(ids))
    return time.process_time() - started


if __name__ == "__main__":
    main()
