"""Perplexity of one trained GPT-2 on one text: eager, the variants of our artifact, CTranslate2 and llama.cpp's files.

python -m benches.quality CHECKPOINT TEXT

The text is cut into windows of the whole context without overlap, what is left at its end is dropped, and every token
of a window but the first is scored. All engines get the same ids.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from gpt_export.artifact.reading import Artifact
from numpy.typing import NDArray
from tokenizers import Tokenizer

from benches.decode_peers import peer_versions
from benches.decoding.client import Worker, WorkerError
from benches.decoding.files import Files
from benches.decoding.roster import Entrant, chosen, ours, peers
from benches.peers import CACHE
from benches.record import RESULTS, write_record

NAME = "quality"
THREADS = 2
ENGINES = ("PyTorch", "CTranslate2 int8", "llama.cpp")
"""Who gives logits and is not the same arithmetic as another."""
ROWS = 4
"""Windows of one request."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="a trained GPT-2 in Hugging Face format, with its tokenizer")
    parser.add_argument("text", type=Path, help="UTF-8 that it was not trained on")
    parser.add_argument("--calibration", type=Path, help="a text, not TEXT, that our int4 is rounded for")
    parser.add_argument("--windows", type=int, help="score the first so many.  [default: all]")
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--artifact", type=Path, help="ours.  [default: an export of the checkpoint]")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="beginning of a name; repeatable")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result")
    options = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    files = Files(options.checkpoint.resolve())
    artifact = options.artifact or files.artifact(options.calibration)
    context = int(Artifact.open(artifact).manifest.model["context_length"])
    ids = windows(read_ids(files.checkpoint(), options.text), context)[: options.windows]
    entrants = chosen([*chosen(peers(files), ENGINES), *ours(artifact)], options.only)
    values = {
        "peers": peer_versions(entrants),
        "perplexity": {one.name: found for one in entrants if (found := perplexity(one, ids, options.threads))},
        "tokens": int(ids.size),
        "window": context,
        "windows": len(ids),
    }
    print(f"wrote {write_record(NAME, values, options.results)}")


def read_ids(checkpoint: Path, text: Path) -> list[int]:
    """The ids of a text by the checkpoint's own tokenizer."""
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    return list(tokenizer.encode(text.read_text(encoding="utf-8")).ids)


def windows(ids: Sequence[int], length: int) -> NDArray[np.int64]:
    """The ids as rows of `length`, without those that do not fill a row.

    Raises:
        SystemExit: there are fewer than a row.
    """
    if len(ids) < length:
        raise SystemExit(f"the text has {len(ids)} tokens, one window has {length}; take a longer text")
    return np.array(ids[: len(ids) // length * length], dtype=np.int64).reshape(-1, length)


def perplexity(entrant: Entrant, ids: NDArray[np.int64], threads: int) -> float | None:
    """Of one engine over all windows, None if it fails, which is said on stderr."""
    nats = 0.0
    try:
        with Worker(entrant.name, entrant.command(threads), threads) as worker:
            for start in range(0, len(ids), ROWS):
                nats += sum(worker.score(ids[start : start + ROWS]))
    except WorkerError as error:
        print(error, file=sys.stderr)
        return None
    found = math.exp(nats / (ids.size - len(ids)))
    print(f"{entrant.name:<20} {found:.3f}", flush=True)
    return found


if __name__ == "__main__":
    main()
