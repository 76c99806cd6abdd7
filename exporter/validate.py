"""The eager reference against staged files, over the cases. Reference and candidates need not live at once."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from exporter.cases import Case
from exporter.errors import GptExportError
from exporter.noise import ASSUMED_NOISE, measure_noise
from exporter.parity import CaseResult, Logits, Tolerance, compare

logger = logging.getLogger(__name__)

Run = Callable[[NDArray[np.int64]], Logits]
"""Ids, int64 (batch, sequence), to logits."""

PROBE_POSITIONS = 32


class ReferenceLogits:
    """Eager logits of every case, kept in files so that the reference can go before a candidate comes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def record(self, reference: nn.Module, cases: Iterable[Case]) -> None:
        """Runs `reference` on the cases.

        Raises:
            OSError: the logits cannot be written.
        """
        run = run_of_module(reference)
        for case in cases:
            np.save(self._path(case), run(case.ids))

    def of(self, case: Case) -> Logits:
        """The logits of one case, mapped from their file."""
        logits: Logits = np.load(self._path(case), mmap_mode="r")
        return logits

    def _path(self, case: Case) -> Path:
        return self._folder / f"{case.name}.npy"


def run_of_module(module: nn.Module) -> Run:
    """The function from ids to logits that `module` is, without gradients."""

    def run(ids: NDArray[np.int64]) -> Logits:
        with torch.no_grad():
            logits: Logits = module(torch.from_numpy(ids)).numpy()
        return logits

    return run


def probe_noise(reference: nn.Module, cases: Iterable[Case]) -> tuple[float, tuple[str, ...]]:
    """The reference's own float32 noise on the first positions of the first text or grid case, and notes on it."""
    widest = max(cases, key=lambda case: min(case.ids.shape[1], PROBE_POSITIONS))
    noise = measure_noise(reference, np.ascontiguousarray(widest.ids[:1, :PROBE_POSITIONS]))
    if noise is None:
        return ASSUMED_NOISE, (f"the reference does not run in float64; its noise is taken to be {ASSUMED_NOISE}",)
    return noise, ()


def validate(
    reference: Callable[[], nn.Module],
    candidates: Mapping[str, Callable[[], Run]],
    cases: tuple[Case, ...],
    scratch: Path,
    on_stage: Callable[[str], None],
) -> tuple[dict[str, tuple[CaseResult, ...]], float, tuple[str, ...]]:
    """Every case of every candidate compared, the noise that set the limits, and notes.

    A case that leaves the limit set from the probe is judged again by the noise of eager on that very case: some
    models amplify rounding on some inputs by orders of magnitude, and then eager is off by as much.

    Args:
        reference: hands out the eager module; it is let go before the first candidate is opened.
        candidates: by target, a function that opens it.
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
    for target, opens in candidates.items():
        on_stage(f"run {target}")
        gc.collect()
        run = opens()
        results[target] = tuple(_compared(case, run, logits, tolerance) for case in cases)
        del run
    for target, found in results.items():
        results[target] = tuple(
            _second_opinion(result, case, reference, candidates[target], logits)
            for result, case in zip(found, cases, strict=True)
        )
    return results, noise, notes


def _compared(case: Case, run: Run, logits: ReferenceLogits, tolerance: Tolerance) -> CaseResult:
    expected = logits.of(case)
    try:
        found = run(case.ids)
    except Exception as error:  # onnxruntime and TorchScript raise what they like; a case that cannot run has failed
        if isinstance(error, GptExportError | RuntimeError | ValueError) or "onnxruntime" in type(error).__module__:
            failed = compare(case.shown(), expected, np.empty((0,), np.float32), tolerance)
            return failed.with_fault(f"does not run: {' '.join(str(error).split())}")
        raise
    return compare(case.shown(), expected, found, tolerance)


def _second_opinion(
    result: CaseResult,
    case: Case,
    reference: Callable[[], nn.Module],
    opens: Callable[[], Run],
    logits: ReferenceLogits,
) -> CaseResult:
    if result.passed or result.fault or result.non_finite:
        return result
    noise = measure_noise(reference(), case.ids)
    if noise is None:
        return result
    logger.info("case %s left its limit; eager's own noise there is %.3g", case.name, noise)
    return _compared(case, opens(), logits, Tolerance(noise=noise, source="case"))
