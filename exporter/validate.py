"""The eager reference against staged files, over the cases. Reference and candidates need not live at once."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from exporter.cases import Case, Need
from exporter.errors import GptExportError
from exporter.noise import ASSUMED_NOISE, NOISE_CEILING, measure_noise
from exporter.parity import CaseResult, Logits, Tolerance, compare
from exporter.progress import OnStage
from exporter.runs import Run, run_rows_alone

logger = logging.getLogger(__name__)

PROBE_POSITIONS = 32


@dataclass(frozen=True, slots=True)
class Candidate:
    """A staged file to compare: how to open it, and what a case may need for it to be run."""

    open: Callable[[], Run]
    takes: frozenset[Need]


class ReferenceLogits:
    """Eager logits of every case, kept in files so that the reference can go before a candidate comes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def record(self, reference: nn.Module, cases: Iterable[Case]) -> None:
        """Runs `reference` on the cases.

        Raises:
            OSError: the logits cannot be written.
        """
        for case in cases:
            np.save(self._path(case), run_rows_alone(reference, case))

    def of(self, case: Case) -> Logits:
        """The logits of one case, mapped from their file."""
        logits: Logits = np.load(self._path(case), mmap_mode="r")
        return logits

    def _path(self, case: Case) -> Path:
        return self._folder / f"{case.name}.npy"


def validate(
    reference: Callable[[], nn.Module],
    candidates: Mapping[str, Candidate],
    cases: tuple[Case, ...],
    scratch: Path,
    on_stage: OnStage,
) -> tuple[dict[str, tuple[CaseResult, ...]], float, tuple[str, ...]]:
    """Every case of every candidate compared, the noise that set the limits, and notes.

    A case that leaves the limit set from the probe is judged again by the noise of eager on that very case: some
    models amplify rounding on some inputs by orders of magnitude, and then eager is off by as much.

    Args:
        reference: hands out the eager module; it is let go before the first candidate is opened.
        candidates: by target; a case that a candidate cannot take is left out for it.
        scratch: a folder for the reference's logits.
    """
    logits = ReferenceLogits(scratch)
    on_stage("run eager")
    module = reference()
    logits.record(module, cases)
    noise, notes = probe_noise(module, cases)
    del module
    tolerance = Tolerance(noise=noise)
    results = {}
    for target, candidate in candidates.items():
        on_stage(f"run {target}")
        gc.collect()
        taken = [case for case in cases if case.needs in candidate.takes]
        run = candidate.open()
        found = [_compared(case, run, logits, tolerance) for case in taken]
        if not all(result.passed for result in found):
            found = [
                _second_opinion(result, case, reference, run, logits) for result, case in zip(found, taken, strict=True)
            ]
        results[target] = tuple(found)
        del run
    if noise > NOISE_CEILING:
        fault = f"eager float32 is {noise:.2g} of its logits off float64, too much to judge by; is dropout left on?"
        results = {target: tuple(result.with_fault(fault) for result in found) for target, found in results.items()}
    return results, noise, notes


def probe_noise(reference: nn.Module, cases: Iterable[Case]) -> tuple[float, tuple[str, ...]]:
    """The reference's own float32 noise on the first positions of the longest case, and notes on it."""
    longest = max(cases, key=lambda case: min(case.ids.shape[1], PROBE_POSITIONS))
    noise = measure_noise(reference, np.ascontiguousarray(next(longest.rows())[:, :PROBE_POSITIONS]))
    if noise is None:
        return ASSUMED_NOISE, (f"the reference does not run in float64; its noise is taken to be {ASSUMED_NOISE}",)
    return noise, ()


def _compared(case: Case, run: Run, logits: ReferenceLogits, tolerance: Tolerance) -> CaseResult:
    expected = logits.of(case)
    try:
        found = run(case)
    except Exception as error:  # onnxruntime and TorchScript raise what they like; a case that cannot run has failed
        if isinstance(error, GptExportError | RuntimeError | ValueError) or "onnxruntime" in type(error).__module__:
            failed = compare(case.shown(), expected, np.empty((0,), np.float32), tolerance)
            return failed.with_fault(f"does not run: {' '.join(str(error).split())}")
        raise
    return compare(case.shown(), expected, found, tolerance)


def _second_opinion(
    result: CaseResult, case: Case, reference: Callable[[], nn.Module], run: Run, logits: ReferenceLogits
) -> CaseResult:
    if result.passed or result.fault or result.non_finite:
        return result
    module = reference()
    noises = [noise for row in case.rows() if (noise := measure_noise(module, row)) is not None]
    if not noises or max(noises) > NOISE_CEILING:
        return result
    logger.info("case %s left its limit; eager's own noise there is %.3g", case.name, max(noises))
    return _compared(case, run, logits, Tolerance(noise=max(noises), source="case"))
