"""Inputs run in forked children of a process that has imported everything once, many in a child."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.campaign.case import Case
from tests.campaign.oracle import MOST_MB, Outcome, Watch, judge, limit_memory, run

SEEDS = Path()
"""The folder of seeds, set by `prepare`."""
BATCH = 100
WALL_SECONDS = 90.0
"""Of the clock, for one input: whoever sleeps takes no time of the processor."""


def prepare(seeds: Path) -> None:
    """Imports once what every child needs. No session is opened here: threads do not survive a fork."""
    global SEEDS
    SEEDS = seeds
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401
    import torch
    from gpt_export.cli import diagnosis, publish, requantizing  # noqa: F401
    from gpt_export.linting import run as linting  # noqa: F401
    from gpt_export.runtime import session  # noqa: F401
    from gpt_export.sources import names  # noqa: F401
    from gpt_export.targets import package  # noqa: F401

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="campaign-warm-") as folder:
        _warm_up(seeds, Path(folder))


def _warm_up(seeds: Path, folder: Path) -> None:
    """Runs what needs no session once, so that no child imports and compiles what every child needs."""
    for argv in (
        ["read", str(seeds / "gpt2")],
        ["read", str(seeds / "sharded")],
        ["read", str(seeds / "checkpoint" / "model.pth"), "--config", str(seeds / "checkpoint" / "config.json")],
        ["inspect", str(seeds / "artifact")],
        ["lint", str(seeds / "artifact")],
        ["package", str(seeds / "artifact"), "--target", "triton", "--output", str(folder / "triton")],
        ["package", str(seeds / "artifact"), "--target", "genai", "--output", str(folder / "genai")],
        ["onnx", str(seeds / "gpt2"), "--gate", "off", "--no-cache", "--output", str(folder / "onnx")],
    ):
        code, said = run(argv)
        if code:
            raise SystemExit(f"the campaign's seeds do not pass: {argv[0]} says {said}")


def outcomes(cases: Sequence[Case], home: Path) -> Iterator[tuple[Case, Outcome]]:
    """Each case and what came of it, as it comes."""
    done = 0
    while done < len(cases):
        batch = cases[done : done + BATCH]
        for outcome in _batch(batch, home):
            yield cases[done], outcome
            done += 1


def _batch(cases: Sequence[Case], home: Path) -> Iterator[Outcome]:
    """Outcomes of as many cases as the child came to; of the last one how the child ended, if it did not by itself."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _in_child(lambda: _judge_all(cases, home, writing))
    os.close(writing)
    told = 0
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        for line in _lines(pipe, child):
            told += 1
            yield Outcome(**json.loads(line))
    status = os.waitpid(child, 0)[1]
    if told < len(cases):
        yield Outcome(bad=_death(status))


def _lines(pipe: Any, child: int) -> Iterator[bytes]:
    held, last = b"", time.monotonic()
    while True:
        ready, _, _ = select.select([pipe], [], [], max(0.0, last + WALL_SECONDS - time.monotonic()))
        if not ready:
            os.kill(child, signal.SIGKILL)
            return
        piece = pipe.read(65536)
        if not piece:
            return
        held, last = held + piece, time.monotonic()
        *whole, held = held.split(b"\n")
        yield from whole


def _judge_all(cases: Sequence[Case], home: Path, writing: int) -> None:
    watch = Watch()
    limit_memory(3 * MOST_MB)
    for case in cases:
        outcome = judge(case, SEEDS, home, watch)
        os.write(writing, json.dumps(outcome.to_dict()).encode() + b"\n")


def _death(status: int) -> str:
    if not os.WIFSIGNALED(status):
        return f"ended with {os.waitstatus_to_exitcode(status)}"
    number = os.WTERMSIG(status)
    return "hung" if number in (signal.SIGPROF, signal.SIGKILL) else f"crashed with {signal.Signals(number).name}"


def _in_child(work: Callable[[], None]) -> None:
    """Does `work` and ends this process, which has nothing else to do."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    code = 1
    try:
        work()
        code = 0
    except BaseException as error:
        if path := os.environ.get("CAMPAIGN_LOG"):
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(f"{type(error).__name__}: {error}\n")
                import traceback

                traceback.print_exception(error, file=file)
    finally:
        sys.stdout.flush()
        os._exit(code)
