"""What the default gate costs, in units of one eager pass over the same positions.

An artifact is made once without a gate, then judged several times. Every part of the gate is timed by wrapping the
function that does it; loading (weights, sessions) is counted apart: whoever runs the model once pays it as well.
Processor time stands beside wall time, for machines that are shared.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from gpt_export.artifact.reading import Artifact
from gpt_export.gate import runs, validate
from gpt_export.gate.cases import choose_cases
from gpt_export.gate.tracing import activations, select, trace
from gpt_export.pipeline import comparison, stages
from gpt_export.pipeline.config import ExportConfig
from gpt_export.runtime.decoding import Past
from gpt_export.sources.names import read_source
from gpt_export.sources.source import Source

from benches.record import RESULTS, write_record

PARTS: dict[str, tuple[tuple[Any, str], ...]] = {
    "eager reference": ((validate.ReferenceLogits, "record"),),
    "noise probe": ((validate, "probe_noise"),),
    "compare": ((validate, "compare"), (validate, "open_case")),
    "weights": ((comparison, "check_weights"),),
    "layers": ((select, "trace"),),
    "loading": ((comparison.Session, "of"), (activations, "session_with_outputs"), (trace.onnx, "load")),
}
"""By part, the functions that do it; a part that another one calls is taken out of the other's time."""


CLOCKS: Mapping[str, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}


class Clock:
    """Seconds by part, each without the parts that it called."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._now = now
        self._open: list[float] = []

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        started = self._now()
        self._open.append(0.0)
        try:
            yield
        finally:
            took = self._now() - started
            self.seconds[name] += took - self._open.pop()
            if self._open:
                self._open[-1] += took

    def wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **settings: Any) -> Any:
            with self.part(name):
                return function(*args, **settings)

        return timed


def gate_once(artifact: Artifact, source: Source, config: ExportConfig, clock: Clock) -> None:
    """One judgement of `artifact`, its parts timed; what is in no part is "rest"."""
    run_of_session = runs.run_of_session

    def timed_run(session: comparison.Session, look: Callable[[Past], None] | None = None) -> runs.Run:
        return clock.wrapped("onnxruntime", run_of_session(session, look))

    with contextlib.ExitStack() as stack:
        for name, functions in PARTS.items():
            for holder, attribute in functions:
                original = getattr(holder, attribute)
                stack.enter_context(mock.patch.object(holder, attribute, clock.wrapped(name, original)))
        stack.enter_context(mock.patch.object(comparison, "run_of_session", timed_run))
        stack.enter_context(mock.patch.object(Artifact, "verify"))  # an export does not hash what it has just written
        with clock.part("rest"):
            report = comparison.validate_artifact(artifact, source, config.gate_settings)
    assert report.passed, report.failures


def eager_once(source: Source, config: ExportConfig, now: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of one eager pass over the positions of the cases, the module loaded before."""
    module = source.reference()
    cases = choose_cases(source, config.gate_settings, whole_text=False)
    started = now()
    for case in cases:
        runs.run_rows_alone(module, case)
    return now() - started


def measure(name: str, repeats: int) -> dict[str, Any]:
    """Sizes of the gate, and by clock its parts beside one eager pass."""
    source, config = read_source(name), ExportConfig()
    cases = choose_cases(source, config.gate_settings, whole_text=False)
    found: dict[str, Any] = {"cases": len(cases), "positions": sum(int(case.mask.sum()) for case in cases)}
    with tempfile.TemporaryDirectory(prefix="gpt-export-bench-") as folder:
        artifact = stages.export(source, ExportConfig(gate="off"), Path(folder) / "artifact")
        eager_once(source, config)
        for clock_name, now in CLOCKS.items():
            passes, gates = [], []
            for _ in range(repeats):
                passes.append(eager_once(source, config, now))
                clock = Clock(now)
                gate_once(artifact, source, config, clock)
                gates.append(clock.seconds)
            found[clock_name] = ratios(passes, gates)
    return found


def ratios(passes: list[float], gates: list[dict[str, float]]) -> dict[str, Any]:
    """Medians of the parts, and what they add up to in units of the eager pass; loading is not counted."""
    parts = {part: statistics.median(gate[part] for gate in gates) for part in gates[0]}
    eager = statistics.median(passes)
    gate = sum(seconds for part, seconds in parts.items() if part != "loading")
    return {
        "eager_pass_seconds": round(eager, 3),
        "parts_seconds": {part: round(seconds, 3) for part, seconds in sorted(parts.items())},
        "gate_over_eager_pass": round(gate / eager, 3),
        "without_its_own_eager_pass": round((gate - parts["eager reference"]) / eager, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", default=["gpt2-124m"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = {name: measure(name, options.repeats) for name in options.sources}
    for name, values in found.items():
        print(name, values)
    print(f"wrote {write_record('gate-cost', {'sources': found, 'threads': options.threads}, options.results)}")


if __name__ == "__main__":
    main()
