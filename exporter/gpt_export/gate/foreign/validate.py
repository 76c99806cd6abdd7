"""Other people's ONNX files against a source of ours: the same cases, as far as the file can run them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import onnxruntime as ort
from gpt_export_models.regular_files import check_file
from gpt_export_models.scratch import scratch_folder

from gpt_export.artifact.onnx_model import OnnxModel, external_files, read_model
from gpt_export.errors import ArtifactError, ConfigError
from gpt_export.gate.case import Case
from gpt_export.gate.cases import choose_cases, grid_case
from gpt_export.gate.determinism import random_nodes
from gpt_export.gate.foreign.codes import coded_matrices, compare_codes
from gpt_export.gate.foreign.halves import HALVES, half_type
from gpt_export.gate.foreign.signature import (
    Roles,
    feed_of,
    match_roles,
    row_by_row,
    run_of_roles,
    stated_roles,
    takes,
)
from gpt_export.gate.foreign.weights import altered_weights, candidate_groups, match_weights
from gpt_export.gate.judge import Subject, Traced, judge
from gpt_export.gate.limits import LIMITS, Limits
from gpt_export.gate.report import ParityReport
from gpt_export.gate.runs import Run
from gpt_export.gate.settings import GateSettings
from gpt_export.gate.validate import Candidate
from gpt_export.progress import OnStage, ignore
from gpt_export.runtime.options import session_options, start_session
from gpt_export.sources.source import Source

FLOAT32 = "onnx"
"""What a graph in float32 is called in reports."""


def validate_file(
    path: Path,
    source: Source,
    settings: GateSettings,
    *,
    roles: Collection[str] = (),
    on_stage: OnStage = ignore,
) -> ParityReport:
    """The report on the `.onnx` file at `path`, which somebody else may have written.

    Inputs and outputs are matched by name and shape, weights by content; the notes say what could not be matched, and
    which cases were left out for that.

    Args:
        roles: what inputs and outputs mean, as `NAME=ROLE`, where it cannot be guessed.

    Raises:
        ArtifactError: the file is missing or onnxruntime refuses it.
        ConfigError: a role is not known, or no case can be run.
        GraphError: its inputs and outputs are not those of a GPT.
    """
    on_stage("match inputs and outputs")
    model = _read(path)
    operators = frozenset(operator for _, operator in model.operators)
    session = _start(path, operators)
    matched = match_roles(session, source.vocab_size, stated_roles(session, tuple(roles)))
    del session
    taken, left = _cases(path, source, settings, matched)
    on_stage("match weights")
    names = source.first_names()
    coded = coded_matrices(model)
    codes = compare_codes(model, coded, source.weights, candidate_groups(source.weights, names)) if coded else None
    half = None if codes else half_type(model)
    sources, found = match_weights(model, source.weights, names, codes.held if codes else (), half)
    precision = codes.precision if codes else HALVES[half].name if half else FLOAT32
    limits = _allowed(settings, precision)
    rounded = precision != FLOAT32  # every layer of such a file differs
    subject = Subject(
        candidates={precision: _candidate(path, matched, limits, operators)},
        traced=None if rounded else Traced(path, sources, feed_of(matched)),
        faults=[
            *altered_weights(model, source.weights, sources),
            *random_nodes(model),
            *(codes.faults if codes else ()),
        ],
        notes=(*(codes.notes if codes else ()), *matched.notes, *left, *found),
        quantized={precision: codes.figures} if codes else {},
    )
    with scratch_folder() as scratch:
        return judge(source, subject, taken, limits, scratch, on_stage)


def _cases(
    path: Path, source: Source, settings: GateSettings, roles: Roles
) -> tuple[tuple[Case, ...], tuple[str, ...]]:
    """The cases that the file can run, at least one of a shape that it is frozen to; and a note on those left out."""
    cases = tuple(case for case in choose_cases(source, settings) if not case.behind)  # how a cache grows is unknown
    taken = tuple(case for case in cases if takes(roles, case))
    if not taken and roles.batch is None and roles.sequence is None:
        names = ", ".join(case.name for case in cases)
        raise ConfigError(f"none of the cases {names} can be run on {path}: {'; '.join(roles.notes)}; choose others")
    if not taken:
        shape = (roles.batch or 1, roles.sequence or source.context_length)
        taken = (grid_case(source.vocab_size, *shape, settings.seed),)
    left = [case.name for case in cases if case not in taken]
    return taken, (f"not run, for what the file lacks: {', '.join(left)}",) if left else ()


def _allowed(settings: GateSettings, precision: str) -> Limits:
    """The limits of the precision that the file is of, with what the user gave in place of them."""
    if precision == FLOAT32 or (settings.limits and settings.limits.atol is not None):
        return settings.allowed
    judged_as = {half.name: half.judged_as for half in HALVES.values()}.get(precision, precision)
    return LIMITS[judged_as].overridden(kl=settings.variant_kl, top1=settings.variant_top1)


def _candidate(path: Path, roles: Roles, limits: Limits, operators: Collection[str]) -> Candidate:
    def opened() -> Run:
        run = run_of_roles(_start(path, operators), roles)
        # onnxruntime's CPU takes several new tokens behind a past of this operator for one row alone.
        return row_by_row(run) if "GroupQueryAttention" in operators else run

    return Candidate(opened, frozenset(("ids", "mask", "cache")), limits)


def _read(path: Path) -> OnnxModel:
    """The graph of the file, read once; its external data is looked at and left where it is.

    Raises:
        ArtifactError: there is no file, no model in it, or external data that nobody should open.
    """
    model = read_model(path)
    for name, place in external_files(model).items():
        try:
            check_file(place)
        except FileNotFoundError:
            continue  # of which onnxruntime tells
        except OSError as error:
            raise ArtifactError(
                f"{place}, where {path} has its {name}, cannot be read: {error.strerror or error}; copy it again"
            ) from error
    return model


def _start(path: Path, operators: Collection[str]) -> ort.InferenceSession:
    # MatMulNBits quantises what it reads only where its weights are prepacked; all else is spared the second copy.
    options = session_options(prepack="MatMulNBits" in operators)
    return start_session(path, options, remedy="check the file and its external data")
