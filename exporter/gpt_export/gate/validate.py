"""The eager reference against staged files, over the cases. Reference and candidates need not live at once."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from gpt_export.errors import ArtifactError, ConfigError, GptExportError
from gpt_export.gate.appeal import Appeal, excused, unsteady_notes
from gpt_export.gate.case import Case, Need
from gpt_export.gate.context_end import ContextEnd
from gpt_export.gate.finiteness import broken_cause, is_broken
from gpt_export.gate.limits import Limits
from gpt_export.gate.noise import ASSUMED_NOISE, NOISE_CEILING, measure_noise
from gpt_export.gate.opened import Describe, open_case
from gpt_export.gate.parity import Logits, Tolerance, compare
from gpt_export.gate.reference import reference_faults
from gpt_export.gate.reference_logits import ReferenceLogits
from gpt_export.gate.report import CaseResult
from gpt_export.gate.runs import Run, logits_of, run_whole
from gpt_export.gate.tracing.first_layers import FirstLayers
from gpt_export.progress import OnPart, OnStage, ignore_part, parts_of
from gpt_export.runtime.signature import Head

logger = logging.getLogger(__name__)

PROBE_POSITIONS = 32
FAULT_POSITIONS = 17
"""Of a row on which the reference itself is tried."""
SUSPICIOUS_NOISE = 2.0**-13
"""Sums of a usual size in float32 are off by far less."""
MORE_PROBES = 3
GREEDY_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Candidate:
    """A staged file to compare: how to open it, what a case may need for it to be run, and what it is allowed."""

    open: Callable[[], Run]
    takes: frozenset[Need]
    limits: Limits
    first_layers: FirstLayers | None = None
    """By which long rows are judged, where they need not be run whole."""
    faults: Callable[[], Iterable[str]] = tuple
    """What is wrong with it beside its logits, asked for when the cases have run."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `validate` found."""

    results: Mapping[str, tuple[CaseResult, ...]]
    noise: float
    opened: Mapping[str, Any] | None
    """The worst case token by token."""
    notes: tuple[str, ...]
    faults: tuple[str, ...] = ()
    """What keeps the reference from being a decoder."""
    is_finite: bool = True
    """Whether the reference gives numbers at all; layers cannot be compared where it does not."""


def validate(
    reference: Callable[[], nn.Module],
    candidates: Mapping[str, Candidate],
    cases: tuple[Case, ...],
    scratch: Path,
    on_stage: OnStage,
    *,
    head: Head | None = None,
    vocab_size: int = 0,
    describe: Describe | None = None,
    let_go: Callable[[], None] = lambda: None,
    published: bool = False,
    long: Sequence[Case] = (),
) -> Comparison:
    """Every case of every candidate compared, the noise that set the limits, and the worst case opened.

    A case that leaves the limit set from the probe is judged again by what eager is on that very case: see `Appeal`.

    Args:
        reference: hands out the eager module; it is let go before the first candidate is opened.
        candidates: by target; a case that a candidate cannot take is left out for it.
        scratch: a folder for the reference's logits.
        head: what the reference says of its ids; None asks nothing of it.
        vocab_size: how many ids there are.
        describe: the text of a token, where there is a tokenizer.
        let_go: called when the reference has run, to take mapped weights out of memory.
        published: whether the reference is a published graph, which the names of the stages say.
        long: those of `cases` that a single candidate with `first_layers` is judged on by these.
    """
    logits = ReferenceLogits(scratch)
    on_stage("run the graph" if published else "run eager")
    module = reference()
    if any("cache" in candidate.takes for candidate in candidates.values()):
        cases = (*cases, *greedy_cases(module, cases))
    ends = _ends(module, candidates, long, _probe_ids(cases), scratch)
    whole = [case for case in cases if case.name not in ends]
    logits.record(module, whole, parts_of(on_stage))
    broken = next((case for case in whole if is_broken(logits.of(case))), None)
    noise, notes, faults = _examined(module, cases, broken, head, vocab_size)
    del module
    let_go()
    results: dict[str, tuple[CaseResult, ...]] = {}
    judging = _Judging(reference, logits, noise, describe, ends)
    for target, candidate in candidates.items():
        on_stage(f"run {target}{' beside the graph' if published else ''}")
        gc.collect()
        results[target] = judging.results(target, candidate, cases, parts_of(on_stage))
    notes += tuple(note for target, found in results.items() for note in unsteady_notes(found, target))
    if noise > NOISE_CEILING:
        why = "is dropout left on?" if head is None or faults else "it draws nothing at random, and magnifies rounding"
        fault = f"eager float32 is {noise:.2g} of its logits off float64, too much to judge by; {why}"
        results = {target: tuple(result.with_fault(fault) for result in found) for target, found in results.items()}
    return Comparison(results, noise, judging.opened, notes, faults, is_finite=broken is None)


def _examined(
    module: nn.Module, cases: Sequence[Case], broken: Case | None, head: Head | None, vocab_size: int
) -> tuple[float, tuple[str, ...], tuple[str, ...]]:
    """Noise, notes, and what keeps the reference from being a decoder; its scores of `broken` are not finite."""
    if broken is not None:
        return ASSUMED_NOISE, (), (broken_cause(module, broken.ids),)
    noise, notes = probe_noise(module, cases)
    if head is None:
        return noise, notes, ()
    ids = _probe_ids(cases)[:, :FAULT_POSITIONS]
    return noise, notes, reference_faults(module, ids, head, vocab_size)


@dataclass(slots=True)
class _Judging:
    """What every candidate is held to, and the worst case so far."""

    reference: Callable[[], nn.Module]
    logits: ReferenceLogits
    noise: float
    describe: Describe | None
    ends: Mapping[str, ContextEnd]
    """By name, the cases that are judged by what the first layers leave of them."""
    opened: Mapping[str, Any] | None = None
    """Of the cases whose logits are bounded, the one that used most of what it is allowed, token by token."""
    opened_ratio: float = -1.0

    def results(
        self, target: str, candidate: Candidate, cases: tuple[Case, ...], on_part: OnPart = ignore_part
    ) -> tuple[CaseResult, ...]:
        """The verdicts on the cases that the candidate can take, which is opened for them."""
        taken = _taken(target, candidate, cases)
        try:
            run = candidate.open()
        except ArtifactError as error:  # the runtime refuses the file: no case of it can be believed
            return _unloaded(taken, error)
        judged: list[CaseResult] = []
        for done, case in enumerate(taken):
            on_part(done, len(taken), "case")
            lost = any(not result.passed for result in judged)
            early = self._early(case, candidate.limits, lost=lost)
            judged.append(early or self._result(target, case, run, candidate.limits, lost=lost))
        return excused(judged)

    def _early(self, case: Case, limits: Limits, *, lost: bool) -> CaseResult | None:
        """The verdict by the first layers; None where the case has to be run whole, whose reference is there then.

        Args:
            lost: whether another case has failed already, so that nobody needs to know more exactly.
        """
        if (end := self.ends.get(case.name)) is None:
            return None
        result = end.verdict(limits)
        if result is not None and (result.passed or lost):
            return result
        self.logits.record(self.reference(), [case])
        return None

    def _result(self, target: str, case: Case, run: Run, limits: Limits, *, lost: bool) -> CaseResult:
        result, found = _compared(case, run, self.logits, Tolerance(limits=limits, noise=self.noise))
        if not result.passed and found is not None:
            result = Appeal(case, self.logits.of(case), found, limits, self.reference).verdict(result, lost=lost)
        if found is not None and result.limit is not None and result.worst_ratio > self.opened_ratio:
            self.opened_ratio = result.worst_ratio
            self.opened = open_case(target, case, self.logits.of(case), found, result.worst_index, self.describe)
        return result


def _ends(
    module: nn.Module, candidates: Mapping[str, Candidate], long: Sequence[Case], probe: NDArray[np.int64], folder: Path
) -> dict[str, ContextEnd]:
    """The long cases by name, as far as a single candidate can be judged on them by its first layers."""
    layers = next(iter(candidates.values())).first_layers if len(candidates) == 1 else None
    if layers is None:
        return {}
    found = {case.name: ContextEnd.read(case, layers, module, probe, folder) for case in long}
    return {name: end for name, end in found.items() if end is not None}


def _taken(target: str, candidate: Candidate, cases: tuple[Case, ...]) -> list[Case]:
    taken = [case for case in cases if case.needs in candidate.takes]
    if not taken:
        names = ", ".join(case.name for case in cases)
        raise ConfigError(f"none of the cases {names} can be run on {target}; choose default, or another case")
    return taken


def _unloaded(cases: Iterable[Case], error: ArtifactError) -> tuple[CaseResult, ...]:
    reason = " ".join(str(error).split())
    return tuple(CaseResult.faulty(case.name, case.ids.shape, case.note, f"does not load: {reason}") for case in cases)


def probe_noise(reference: nn.Module, cases: Iterable[Case]) -> tuple[float, tuple[str, ...]]:
    """The reference's own float32 noise on the first positions of the longest case, and notes on it.

    Where that is much, it is the least of a few rows: an expert chosen by a hair is in one of them, dropout in all.
    """
    noise = measure_noise(reference, _probe_ids(cases))
    if noise is not None and noise > SUSPICIOUS_NOISE:
        rows = [row[:, :PROBE_POSITIONS] for case in cases for row in case.rows() if row.shape[1] > 1]
        others = [measure_noise(reference, np.ascontiguousarray(row)) for row in rows[:MORE_PROBES]]
        noise = min(noise, *(other for other in others if other))
    if noise is None:
        noise = ASSUMED_NOISE
        return noise, (f"the reference does not run in float64; its noise is taken to be {noise:.2g}",)
    return noise, ()


def _probe_ids(cases: Iterable[Case]) -> NDArray[np.int64]:
    """The first positions of the longest case, one row."""
    longest = max(cases, key=lambda case: min(case.ids.shape[1], PROBE_POSITIONS))
    return np.ascontiguousarray(next(longest.rows())[:, :PROBE_POSITIONS])


def greedy_cases(reference: nn.Module, cases: Iterable[Case]) -> tuple[Case, ...]:
    """The first tokens of a case with eager's own greedy continuation, to be fed to a cache token by token.

    If the likeliest token is the same behind each of them, the candidate's greedy continuation is eager's.
    """
    case = next((case for case in cases if case.needs == "cache"), None)
    if case is None or case.ids.shape[1] < 2:
        return ()
    ids = np.ascontiguousarray(next(case.rows())[:, : case.ids.shape[1] - min(GREEDY_TOKENS, case.ids.shape[1] - 1)])
    prompt = ids.shape[1]
    while ids.shape[1] < case.ids.shape[1]:
        likeliest = logits_of(reference, ids)[:, -1].argmax(axis=-1)
        ids = np.concatenate([ids, likeliest[:, None].astype(np.int64)], axis=1)
    chunks = (prompt, *(1,) * (ids.shape[1] - prompt))
    reason = "greedy decoding follows eager's"
    return (replace(case, name="greedy", ids=ids, mask=np.ones_like(ids), reason=reason, chunks=chunks),)


def _compared(case: Case, run: Run, logits: ReferenceLogits, tolerance: Tolerance) -> tuple[CaseResult, Logits | None]:
    """The verdict on a case, and the candidate's logits where there are some of the right shape."""
    expected = logits.of(case)
    try:
        found = run_whole(run, case)
    except Exception as error:  # onnxruntime and TorchScript raise what they like; a case that cannot run has failed
        if isinstance(error, GptExportError | RuntimeError | ValueError) or "onnxruntime" in type(error).__module__:
            reason = " ".join(str(error).split())
            return CaseResult.faulty(case.name, case.ids.shape, case.note, f"does not run: {reason}"), None
        raise
    result = compare(case.shown(), expected, found, tolerance)
    return result, None if result.fault else found
