"""Other people's ONNX files against a source of ours: the same cases, as far as the file can run them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError

from gpt_export.errors import ArtifactError, ConfigError
from gpt_export.gate.cases import choose_cases, grid_case
from gpt_export.gate.determinism import random_nodes
from gpt_export.gate.foreign.signature import feed_of, match_roles, row_by_row, run_of_roles, takes
from gpt_export.gate.foreign.weights import altered_weights, match_weights
from gpt_export.gate.report import ParityReport
from gpt_export.gate.runs import Run
from gpt_export.gate.settings import GateSettings
from gpt_export.gate.tracing.select import with_layers
from gpt_export.gate.validate import Candidate, validate
from gpt_export.progress import OnStage, ignore
from gpt_export.sources.source import Source


def validate_file(path: Path, source: Source, settings: GateSettings, *, on_stage: OnStage = ignore) -> ParityReport:
    """The report on the `.onnx` file at `path`, which somebody else may have written.

    Inputs and outputs are matched by name and shape, weights by content; the notes say what could not be matched, and
    which cases were left out for that.

    Raises:
        ArtifactError: the file is missing or onnxruntime refuses it.
        GraphError: its inputs and outputs are not those of a GPT.
    """
    on_stage("match inputs and outputs")
    session = _open(path)
    roles = match_roles(session, source.vocab_size)
    cases = choose_cases(source, settings)
    taken = tuple(case for case in cases if takes(roles, case))
    if not taken and roles.batch is None and roles.sequence is None:
        names = ", ".join(case.name for case in cases)
        raise ConfigError(f"none of the cases {names} can be run on {path}: {'; '.join(roles.notes)}; choose others")
    if not taken:
        taken = (
            grid_case(source.vocab_size, roles.batch or 1, roles.sequence or source.context_length, settings.seed),
        )
    notes = list(roles.notes)
    if left := [case.name for case in cases if case not in taken]:
        notes.append(f"not run, for what the file lacks: {', '.join(left)}")
    on_stage("match weights")
    sources, found = match_weights(path, source.weights, source.first_names())
    del session

    def opened() -> Run:
        run = run_of_roles(_open(path), roles)
        return row_by_row(run) if refuses_batched_chunks(path) else run

    candidate = Candidate(opened, frozenset(("ids", "mask", "cache")), settings.allowed)
    with tempfile.TemporaryDirectory(prefix="gpt-export-") as scratch:
        compared = validate(
            source.reference,
            {"onnx": candidate},
            taken,
            Path(scratch),
            on_stage,
            describe=source.describe_token,
            let_go=source.let_go,
        )
    report = ParityReport(
        targets=compared.results,
        weights=None,
        noise=compared.noise,
        limits=settings.allowed,
        faults=(*altered_weights(path, source.weights, sources), *random_nodes(path)),
        notes=(*source.notes, *notes, *found, *compared.notes),
        opened=compared.opened,
    )
    on_stage("trace layers")
    return with_layers(report, source, path, sources, taken, feed_of(roles))


def refuses_batched_chunks(path: Path) -> bool:
    """Whether onnxruntime's CPU takes several new tokens behind a past of this graph for one row alone."""
    return _has(path, "GroupQueryAttention")


def _has(path: Path, operator: str) -> bool:
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except (OSError, DecodeError):  # onnxruntime, which is asked next, says what is wrong with it
        return False
    return any(node.op_type == operator for node in graph.node)


def _open(path: Path) -> ort.InferenceSession:
    options: Any = ort.SessionOptions()
    options.log_severity_level = 3
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist; name an artifact folder or an .onnx file")
    if not _has(path, "MatMulNBits"):  # which quantises what it reads only where its weights are prepacked
        options.add_session_config_entry("session.disable_prepacking", "1")
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class of their own
        reason = " ".join(str(error).split())
        raise ArtifactError(
            f"onnxruntime cannot load {path}: {reason}; check the file and its external data"
        ) from error
