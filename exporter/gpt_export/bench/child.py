"""One variant measured in a process of its own: a request as a line of JSON on stdin, the answer as JSON on stdout.

`python -m gpt_export.bench.child`; `run` starts it. Variants cannot disturb each other's memory this way.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
from gpt_export_models.errors import GptExportError

from gpt_export.bench import memory
from gpt_export.bench.measure import decode_seconds, measure, spread
from gpt_export.bench.plan import Plan
from gpt_export.lifeline import end_with_parent
from gpt_export.runtime.session import Session

LOADS = 3
"""At most so many times the session is opened; once more is not counted, which brings the files into memory."""


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """The measurements of one variant in JSON values.

    Memory is that of opening the session and decoding one row, and again of everything that is measured.

    Args:
        request: `folder`, `variant`, and a `plan` as `Plan.to_dict` tells it.
    """
    plan = Plan.from_dict(request["plan"])
    before = memory.now()

    def opened() -> Session:
        # Hashing the files is left out: it is a choice of the application's, and as fast as SHA-256 is.
        return Session.open(request["folder"], variant=request["variant"], verify=False, threads=plan.threads)

    with memory.peak() as one_row:
        session = opened()
        ids = np.zeros((1, plan.decode_context), dtype=np.int64)
        decode_seconds(session, ids, plan.new_tokens)
    del session
    loads = []
    for _ in range(min(LOADS, plan.repeats)):
        started = time.perf_counter()
        session = opened()
        loads.append(time.perf_counter() - started)
    found: dict[str, Any] = {"load_s": spread(loads)} | measure(session, plan)
    after = memory.now()
    if before and after and one_row:
        all_of_it = {"peak_rss_mb": round(after["peak_rss_mb"], 1)}
        found["memory"] = {"interpreter_anon_mb": round(before["anon_mb"], 1), "one_row": one_row, "all": all_of_it}
    else:
        found["memory"] = None
    return found


def main() -> None:
    """Answers one request; a named failure is answered as `error`."""
    request = json.loads(sys.stdin.readline())
    end_with_parent()
    try:
        found = answer(request)
    except GptExportError as error:
        found = {"error": str(error)}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
