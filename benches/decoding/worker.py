"""A process with one engine: a request a line as JSON on stdin, an answer a line on stdout.

`python -m benches.decoding.worker ENGINE PATH THREADS`, in the environment of the engine's library. The first line that
it writes tells the seconds of loading; then `{"do": "generate", "ids": [[...]], "new": n}` is answered with `first_s`,
`rest_s` and `ids`, and `{"do": "score", "ids": [[...]]}` with `nats`. A failure is answered as `{"error": "..."}`.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benches.decoding.engine import Engine

Tell = Callable[[dict[str, Any]], None]


def serve(engine: Engine, lines: Iterable[str], tell: Tell) -> None:
    """Answers every line until there is none."""
    for line in lines:
        try:
            tell(answer(engine, json.loads(line)))
        except Exception as error:
            tell({"error": f"{type(error).__name__}: {error}"})


def answer(engine: Engine, request: dict[str, Any]) -> dict[str, Any]:
    """The answer to one request.

    Raises:
        ValueError: nothing is known of what it asks for.
    """
    rows = np.array(request["ids"], dtype=np.int64)
    if request["do"] == "generate":
        found = engine.generate(rows, request["new"])
        return {"first_s": found.first_s, "rest_s": found.rest_s, "ids": found.ids}
    if request["do"] == "score":
        return {"nats": engine.score(rows)}
    raise ValueError(f"{request['do']!r} is no request; ask for generate or score")


def main() -> None:
    name, path, threads = sys.argv[1:]
    # What libraries print goes to stderr: stdout has answers alone.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(values: dict[str, Any]) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    module = importlib.import_module(f"benches.decoding.engines.{name}")
    started = time.perf_counter()
    engine = module.open_engine(Path(path), int(threads))
    tell({"load_s": time.perf_counter() - started})
    serve(engine, sys.stdin, tell)


if __name__ == "__main__":
    main()
